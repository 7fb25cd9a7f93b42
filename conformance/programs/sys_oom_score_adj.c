// kind: task
// state: oom_score_adj of two processes
// users: root nobody
// mutate: task_core_entry.oom_score_adj
#include "conformance.h"

static void put(const char *val)
{
	int fd = SYS(open("/proc/self/oom_score_adj", O_WRONLY));

	SYS(write(fd, val, strlen(val)));
	close(fd);
}

static void check(const char *val)
{
	char now[32];

	CHECK(conf_read_file("/proc/self/oom_score_adj", now, sizeof(now)), "cannot read it");
	now[strcspn(now, "\n")] = 0;
	CHECK(!strcmp(now, val), "oom_score_adj is %s, was %s", now, val);
}

int main(int argc, char **argv)
{
	int p[2];
	pid_t child;
	char c;

	conf_init(argc, argv);
	SYS(pipe(p));
	put("300");
	child = SYS(fork());
	if (child == 0) {
		put("777");
		SYS(write(p[1], "x", 1));
		conf_wait();
		check("777");
		_exit(0);
	}
	SAME(SYS(read(p[0], &c, 1)), 1);
	conf_ready();
	conf_wait();
	check("300");
	conf_reap_ok(child);
	conf_pass();
}
