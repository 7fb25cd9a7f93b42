// kind: waiting
// state: sigwaitinfo, sigtimedwait, sigsuspend, pause and a signalfd, each ended by its signal afterwards
// users: root nobody
// mutate: user_x86_regs_entry.di=0
// nocriu: sigwaitinfo ends with EINTR
// nouser: it looks itself up in /proc, which shows other pids
#include "conf_waiters.h"
#include <sys/signalfd.h>

static void handler(int sig)
{
}

static long with_sigwaitinfo(struct waiter *w)
{
	uint64_t set = 1UL << (SIGRTMIN - 1);
	siginfo_t si;
	long r = syscall(SYS_rt_sigtimedwait, &set, &si, NULL, 8);

	return r == SIGRTMIN && si.si_value.sival_int == 7 ? 0 : -1;
}

static void queue_it(struct waiter *w)
{
	union sigval v = { .sival_int = 7 };

	OK(sigqueue(getpid(), SIGRTMIN, v));
}

static long with_sigtimedwait(struct waiter *w)
{
	struct timespec t = { 1000, 0 };
	uint64_t set = 1UL << (SIGUSR2 - 1);

	return syscall(SYS_rt_sigtimedwait, &set, NULL, &t, 8);
}

static void usr2(struct waiter *w)
{
	OK(kill(getpid(), SIGUSR2));
}

/* These two run the handler and end with EINTR: that is their success. */
static long with_sigsuspend(struct waiter *w)
{
	uint64_t mask = ~(1UL << (SIGUSR1 - 1));

	return syscall(SYS_rt_sigsuspend, &mask, 8);
}

static long with_pause(struct waiter *w)
{
	sigset_t s;

	sigemptyset(&s);
	sigaddset(&s, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &s, NULL);
	return syscall(SYS_pause);
}

static void usr1(struct waiter *w)
{
	UNTIL(conf_in_syscall(w->tid, w->nr), "the thread to wait again");
	OK(syscall(SYS_tgkill, getpid(), w->tid, SIGUSR1));
}

static long with_signalfd(struct waiter *w)
{
	struct signalfd_siginfo si;
	long r = syscall(SYS_read, w->fd[0], &si, sizeof(si));

	return r == sizeof(si) ? (long)si.ssi_signo : r;
}

static void winch(struct waiter *w)
{
	OK(kill(getpid(), SIGWINCH));
}

static struct waiter waiters[] = {
	{ "sigwaitinfo", SYS_rt_sigtimedwait, with_sigwaitinfo, queue_it },
	{ "sigtimedwait", SYS_rt_sigtimedwait, with_sigtimedwait, usr2, SIGUSR2 },
	{ "sigsuspend", SYS_rt_sigsuspend, with_sigsuspend, usr1, -1, EINTR },
	{ "pause", SYS_pause, with_pause, usr1, -1, EINTR },
	{ "read from a signalfd", SYS_read, with_signalfd, winch, SIGWINCH },
};
#define N (int)(sizeof(waiters) / sizeof(waiters[0]))

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = handler };
	sigset_t all, w;

	conf_init(argc, argv);
	SYS(sigaction(SIGUSR1, &sa, NULL));
	sigfillset(&all);
	SYS(sigprocmask(SIG_BLOCK, &all, NULL));
	sigemptyset(&w);
	sigaddset(&w, SIGWINCH);
	waiters[4].fd[0] = SYS(signalfd(-1, &w, SFD_CLOEXEC));
	waiters_start(waiters, N);
	conf_ready();
	conf_wait();
	waiters_finish(waiters, N);
	conf_pass();
}
