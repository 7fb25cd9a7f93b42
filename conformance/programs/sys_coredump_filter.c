// kind: task
// state: coredump filter
// users: root nobody
// mutate: fermata.mm_extra.coredump_filter
// nocriu: restore: it does not save it
// nocriu: mutate: it does not save it
#include "conformance.h"

int main(int argc, char **argv)
{
	char now[32];
	int fd;

	conf_init(argc, argv);
	fd = SYS(open("/proc/self/coredump_filter", O_WRONLY));
	SYS(write(fd, "0x5", 3));
	close(fd);
	conf_ready();
	conf_wait();
	CHECK(conf_read_file("/proc/self/coredump_filter", now, sizeof(now)), "cannot read it");
	SAME(strtol(now, NULL, 16), 5);
	conf_pass();
}
