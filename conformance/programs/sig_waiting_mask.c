// kind: signals
// state: threads inside sigsuspend, ppoll, pselect and epoll_pwait with a temporary mask; the old one comes back
// users: root nobody
// mutate: thread_core_entry.blk_sigset
// nocriu: epoll_pwait ends with EINTR
// nouser: it looks itself up in /proc, which shows other pids
#include "conformance.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

/*
 * While such a call sleeps, the task's mask is the call's; the mask from
 * before is kept aside by the kernel until a handler has run.
 */
static volatile int caught[4];
static pid_t tids[4];
static __thread int me;
static const long calls[4] = { SYS_rt_sigsuspend, SYS_ppoll, SYS_pselect6, SYS_epoll_pwait };

static void handler(int sig)
{
	caught[me]++;
}

static void *run(void *arg)
{
	sigset_t temp, old, now;
	struct epoll_event ev;
	int r = 0, ep;

	me = (long)arg;
	ep = SYS(epoll_create1(EPOLL_CLOEXEC));
	sigfillset(&temp);
	sigdelset(&temp, SIGUSR1);
	sigemptyset(&old);
	sigaddset(&old, SIGUSR1);
	sigaddset(&old, SIGUSR2);
	sigaddset(&old, SIGRTMIN + me + 1);
	PT(pthread_sigmask(SIG_SETMASK, &old, NULL));
	tids[me] = syscall(SYS_gettid);
	switch (me) {
	case 0:
		r = sigsuspend(&temp);
		break;
	case 1:
		r = ppoll(NULL, 0, NULL, &temp);
		break;
	case 2:
		r = pselect(0, NULL, NULL, NULL, NULL, &temp);
		break;
	case 3:
		r = epoll_pwait(ep, &ev, 1, -1, &temp);
		break;
	}
	CHECK(r == -1 && errno == EINTR, "call %d returned %d: %s", me, r, strerror(errno));
	CHECK(conf_gone(), "call %d ended before its signal", me);
	SAME(caught[me], 1);
	PT(pthread_sigmask(SIG_SETMASK, NULL, &now));
	CHECK(!memcmp(&now, &old, 8), "call %d: the mask is %#lx afterwards, was %#lx", me, *(long *)&now, *(long *)&old);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = handler };
	pthread_t t[4];
	sigset_t s;
	long i;

	conf_init(argc, argv);
	sigemptyset(&s);
	sigaddset(&s, SIGUSR1);
	SYS(sigprocmask(SIG_BLOCK, &s, NULL));
	SYS(sigaction(SIGUSR1, &sa, NULL));
	for (i = 0; i < 4; i++) {
		PT(pthread_create(&t[i], NULL, run, (void *)i));
		UNTIL(tids[i] && conf_in_syscall(tids[i], calls[i]), "a thread to sleep");
	}
	conf_ready();
	conf_wait();
	for (i = 0; i < 4; i++) {
		UNTIL(conf_in_syscall(tids[i], calls[i]), "a thread to sleep again");
		OK(syscall(SYS_tgkill, getpid(), tids[i], SIGUSR1));
		PT(pthread_join(t[i], NULL));
	}
	conf_pass();
}
