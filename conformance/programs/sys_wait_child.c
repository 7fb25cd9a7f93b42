// kind: waiting
// state: wait4 and waitid for children that end, stop and go on afterwards
// users: root nobody
// mutate: user_x86_regs_entry.di=1
#include "conf_waiters.h"

static pid_t kids[3];

static long with_wait4(struct waiter *w)
{
	int st = 0;
	long r = syscall(SYS_wait4, kids[0], &st, 0, NULL);

	return r == kids[0] && WIFEXITED(st) ? WEXITSTATUS(st) : -1;
}

static long with_waitid(struct waiter *w)
{
	siginfo_t si = { 0 };

	if (syscall(SYS_waitid, P_PID, kids[1], &si, WEXITED, NULL) < 0)
		return -1;
	return si.si_pid == kids[1] && si.si_code == CLD_KILLED ? si.si_status : -1;
}

static long with_stop(struct waiter *w)
{
	int st = 0;
	long r = syscall(SYS_wait4, kids[2], &st, WUNTRACED, NULL);

	return r == kids[2] && WIFSTOPPED(st) ? WSTOPSIG(st) : -1;
}

static void let_exit(struct waiter *w)
{
	OK(kill(kids[0], SIGUSR1));
}

static void do_kill(struct waiter *w)
{
	OK(kill(kids[1], SIGKILL));
}

static void do_stop(struct waiter *w)
{
	OK(kill(kids[2], SIGSTOP));
}

static void leave(int sig)
{
	_exit(33);
}

static struct waiter waiters[] = {
	{ "wait4", SYS_wait4, with_wait4, let_exit, 33 },
	{ "waitid", SYS_waitid, with_waitid, do_kill, SIGKILL },
	{ "wait4 with WUNTRACED", SYS_wait4, with_stop, do_stop, SIGSTOP },
};

int main(int argc, char **argv)
{
	int i, st;

	conf_init(argc, argv);
	for (i = 0; i < 3; i++) {
		kids[i] = SYS(fork());
		if (kids[i] == 0) {
			signal(SIGUSR1, leave);
			for (;;)
				pause();
		}
		UNTIL(conf_in_syscall(kids[i], SYS_pause), "the children");
	}
	waiters_start(waiters, 3);
	conf_ready();
	conf_wait();
	waiters_finish(waiters, 3);
	OK(kill(kids[2], SIGKILL));
	SAME(OK(waitpid(kids[2], &st, 0)), kids[2]);
	conf_pass();
}
