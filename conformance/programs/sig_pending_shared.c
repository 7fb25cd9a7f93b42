// kind: signals
// state: pending signals of the process with their siginfo: values, senders, the order of realtime queues
// users: root nobody
// mutate: task_core_entry.signals_s
// short: yes
#include "conformance.h"

#define RT SIGRTMIN + 3
static const struct timespec now = { 0, 0 };

/* Takes the next one of a signal, or fails. */
static siginfo_t take(int sig)
{
	sigset_t s;
	siginfo_t si;

	memset(&si, 0, sizeof(si));
	sigemptyset(&s);
	sigaddset(&s, sig);
	CHECK(sigtimedwait(&s, &si, &now) == sig, "signal %d isn't pending: %s", sig, strerror(errno));
	return si;
}

int main(int argc, char **argv)
{
	union sigval v;
	siginfo_t si;
	sigset_t all, pend;
	pid_t child;
	int i;

	conf_init(argc, argv);
	sigfillset(&all);
	SYS(sigprocmask(SIG_BLOCK, &all, NULL));
	/* A queue of one realtime signal, another one, values in each. */
	for (i = 0; i < 20; i++) {
		v.sival_ptr = (void *)(0x123456789000 + i);
		SYS(sigqueue(getpid(), RT, v));
	}
	v.sival_int = -5;
	SYS(sigqueue(getpid(), SIGRTMAX, v));
	/* Standard signals keep the first only. */
	v.sival_int = 1;
	SYS(sigqueue(getpid(), SIGUSR1, v));
	v.sival_int = 2;
	SYS(sigqueue(getpid(), SIGUSR1, v));
	SYS(kill(getpid(), SIGTERM));
	/* One from a child, and the SIGCHLD of its end. */
	child = SYS(fork());
	if (child == 0) {
		SYS(kill(getppid(), SIGWINCH));
		_exit(42);
	}
	SAME(SYS(waitpid(child, NULL, 0)), child);
	conf_ready();
	conf_wait();
	OK(sigpending(&pend));
	for (i = 1; i <= 64; i++)
		SAME(sigismember(&pend, i) == 1, i == RT || i == SIGRTMAX || i == SIGUSR1 || i == SIGTERM || i == SIGWINCH || i == SIGCHLD);
	for (i = 0; i < 20; i++) {
		si = take(RT);
		SAME(si.si_code, SI_QUEUE);
		SAME(si.si_pid, getpid());
		SAME(si.si_uid, getuid());
		SAME((long)si.si_value.sival_ptr, 0x123456789000 + i);
	}
	si = take(SIGRTMAX);
	SAME(si.si_value.sival_int, -5);
	si = take(SIGUSR1);
	SAME(si.si_value.sival_int, 1);
	si = take(SIGTERM);
	SAME(si.si_code, SI_USER);
	SAME(si.si_pid, getpid());
	si = take(SIGWINCH);
	SAME(si.si_code, SI_USER);
	SAME(si.si_pid, child);
	SAME(si.si_uid, getuid());
	si = take(SIGCHLD);
	SAME(si.si_code, CLD_EXITED);
	SAME(si.si_pid, child);
	SAME(si.si_status, 42);
	OK(sigpending(&pend));
	for (i = 1; i <= 64; i++)
		CHECK(sigismember(&pend, i) != 1, "signal %d is pending still", i);
	conf_pass();
}
