// kind: task
// state: command line and environment areas, overwritten in place as setproctitle does
// users: root nobody
// mutate: mm_entry.mm_arg_start mm_entry.mm_env_end
#include "conformance.h"

static char before[2][8192], now[8192];

static size_t whole(const char *path, char *buf)
{
	int fd = SYS(open(path, O_RDONLY));
	ssize_t n = read(fd, buf, 8192);

	close(fd);
	return n < 0 ? 0 : n;
}

int main(int argc, char **argv)
{
	size_t n[2], space;

	conf_init(argc, argv);
	space = strlen(argv[0]);
	memset(argv[0], 'T', space);
	memcpy(argv[0], "title:", 6);
	setenv("CONFORMANCE", "2", 1); /* elsewhere now: the area keeps the old one */
	n[0] = whole("/proc/self/cmdline", before[0]);
	n[1] = whole("/proc/self/environ", before[1]);
	CHECK(!strncmp(before[0], "title:TTT", 9), "set-up: the title is %s", before[0]);
	conf_ready();
	conf_wait();
	SAME(whole("/proc/self/cmdline", now), n[0]);
	CHECK(!memcmp(now, before[0], n[0]), "the command line is %s, was %s", now, before[0]);
	SAME(whole("/proc/self/environ", now), n[1]);
	CHECK(!memcmp(now, before[1], n[1]), "the environment area is %s, was %s", now, before[1]);
	CHECK(!strcmp(getenv("CONFORMANCE"), "2"), "the variable is %s", getenv("CONFORMANCE"));
	conf_pass();
}
