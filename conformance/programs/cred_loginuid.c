// kind: credentials
// state: the login uid (/proc/self/loginuid)
// users: root; only root can set it
// mutate: task_core_entry.loginuid
#include "conformance.h"
#include <fcntl.h>

static unsigned int login(void)
{
	unsigned int uid = 0;
	FILE *f = fopen("/proc/self/loginuid", "r");

	CHECK(f && fscanf(f, "%u", &uid) == 1, "/proc/self/loginuid: %s", strerror(errno));
	fclose(f);
	return uid;
}

int main(int argc, char **argv)
{
	int fd;

	conf_init(argc, argv);
	fd = open("/proc/self/loginuid", O_WRONLY);
	if (fd < 0 || write(fd, "4711", 4) != 4)
		conf_skip("the login uid cannot be set here");
	close(fd);
	CHECK(login() == 4711, "it is %u", login());
	conf_ready();
	conf_wait();
	CHECK(login() == 4711, "it is %u", login());
	conf_pass();
}
