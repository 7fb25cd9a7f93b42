// kind: scheduling
// state: the nice values of sessions' autogroups
// users: root; others may change one every tenth of a second only
// mutate: fermata.task_extra.autogroup
#include "conformance.h"

/*
 * sched(7), "The autogroup feature": every session has a group, and
 * /proc/PID/autogroup is its nice value. The session of the root, a session
 * below it, one whose leader has gone, and one left at 0.
 */
static int get(pid_t pid)
{
	char path[64], b[64] = "";
	int fd, nice;
	long n;

	snprintf(path, sizeof path, "/proc/%d/autogroup", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && pid == getpid() && errno == ENOENT)
		conf_skip("no autogroups in this kernel");
	CHECK(fd >= 0, "%s: %m", path);
	n = OK(read(fd, b, sizeof b - 1));
	close(fd);
	if (n == 0)
		conf_skip("this process is in a real task group");
	CHECK(sscanf(b, "/autogroup-%*d nice %d", &nice) == 1, "autogroup: %s", b);
	return nice;
}

static void set(int nice)
{
	char b[16];
	int fd = OK(open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC));

	snprintf(b, sizeof b, "%d", nice);
	if (write(fd, b, strlen(b)) < 0)
		conf_skip("autogroups are switched off");
	close(fd);
}

static void sleeper(void)
{
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	volatile pid_t *orphan;
	pid_t low, plain, leader;
	int st;

	conf_init(argc, argv);
	orphan = conf_shared(4096);
	get(getpid());
	set(7);
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	low = SYS(fork());
	if (low == 0) {
		OK(setsid());
		set(-5);
		orphan[1] = 1;
		sleeper();
	}
	plain = SYS(fork());
	if (plain == 0) {
		OK(setsid());
		orphan[2] = 1;
		sleeper();
	}
	leader = SYS(fork());
	if (leader == 0) {
		OK(setsid());
		set(11);
		leader = SYS(fork());
		if (leader == 0)
			sleeper();
		orphan[0] = leader;
		_exit(0);
	}
	SAME(OK(waitpid(leader, &st, 0)), leader);
	UNTIL(orphan[1] && orphan[2], "the sessions");
	conf_ready();
	conf_wait();
	SAME(get(getpid()), 7);
	SAME(get(low), -5);
	SAME(get(plain), 0);
	SAME(get(orphan[0]), 11);
	OK(kill(low, SIGKILL));
	OK(kill(plain, SIGKILL));
	OK(kill(orphan[0], SIGKILL));
	while (wait(&st) > 0)
		;
	conf_pass();
}
