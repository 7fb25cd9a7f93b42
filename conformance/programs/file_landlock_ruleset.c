// kind: files
// state: a Landlock ruleset that is not in force
// users: root nobody
// refused: Landlock ruleset
#include "conformance.h"

int main(int argc, char **argv)
{
	uint64_t handled = 1 << 7;
	int fd;

	conf_init(argc, argv);
	fd = syscall(444, &handled, sizeof(handled), 0); /* landlock_create_ruleset */
	if (fd < 0)
		conf_skip("Landlock: %s", strerror(errno));
	conf_ready();
	conf_wait();
	OK(fcntl(fd, F_GETFD));
	conf_pass();
}
