// kind: credentials
// state: a thread in a Landlock domain
// users: root nobody
// refused: Landlock
#include "conformance.h"

#define MAKE_DIR (1ULL << 7)

static volatile int set;

static void *run(void *arg)
{
	uint64_t handled = MAKE_DIR;
	int fd = syscall(444, &handled, sizeof(handled), 0); /* landlock_create_ruleset */

	(void)arg;
	if (fd < 0)
		conf_skip("Landlock: %s", strerror(errno));
	SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	SYS(syscall(446, fd, 0)); /* landlock_restrict_self */
	close(fd);
	set = 1;
	conf_wait();
	CHECK(mkdir("dir", 0700) < 0 && errno == EACCES, "it is not restricted: %s", strerror(errno));
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;

	conf_init(argc, argv);
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set, "the thread");
	conf_ready();
	conf_wait();
	PT(pthread_join(t, NULL));
	OK(mkdir("dir", 0700));
	conf_pass();
}
