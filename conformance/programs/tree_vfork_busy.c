// kind: sharing
// state: a program that starts others by vfork all the time: the checkpoint waits until each has got out of it
// users: root nobody
// mutate: user_x86_regs_entry.ip
// moving: tasks maps status fds
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <spawn.h>

extern char **environ;

/* One worker uses posix_spawn, one a vfork that takes its time. */
static volatile long *sh;

static void worker(int i)
{
	struct timespec t = { 0, 15000000 };
	char *args[] = { "true", NULL };
	pid_t pid;
	int st;

	while (!sh[8]) {
		if (i) {
			PT(posix_spawn(&pid, "/bin/true", NULL, NULL, args, environ));
		} else {
			pid = vfork();
			if (pid == 0) {
				syscall(SYS_nanosleep, &t, NULL);
				_exit(0);
			}
			CHECK(pid > 0, "vfork: %s", strerror(errno));
		}
		SAME(OK(waitpid(pid, &st, 0)), pid);
		SAME(st, 0);
		sh[i]++;
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	long before[2];
	pid_t pid[2];
	int i;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	for (i = 0; i < 2; i++) {
		pid[i] = SYS(fork());
		if (pid[i] == 0)
			worker(i);
	}
	UNTIL(sh[0] > 2 && sh[1] > 2, "the workers");
	conf_ready();
	conf_wait();
	for (i = 0; i < 2; i++)
		before[i] = sh[i];
	for (i = 0; i < 2; i++)
		UNTIL(sh[i] > before[i] + 3, "the workers to go on");
	sh[8] = 1;
	for (i = 0; i < 2; i++)
		conf_reap_ok(pid[i]);
	conf_pass();
}
