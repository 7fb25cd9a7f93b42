// kind: signals
// state: pending signals of single threads with their siginfo, apart from those of the process
// users: root nobody
// mutate: thread_core_entry.signals_p
#include "conformance.h"

#define N 3
static const struct timespec now = { 0, 0 };
static int ready_count;
static pid_t tids[N];

static void set_up(int i)
{
	union sigval v;
	int k;

	tids[i] = syscall(SYS_gettid);
	for (k = 0; k < 5; k++) {
		v.sival_int = i * 100 + k;
		PT(pthread_sigqueue(pthread_self(), SIGRTMIN + 1, v));
	}
	if (i)
		SYS(syscall(SYS_tgkill, getpid(), tids[i], SIGUSR2));
}

static void check(int i)
{
	sigset_t s, pend;
	siginfo_t si;
	int k;

	sigemptyset(&s);
	sigaddset(&s, SIGRTMIN + 1);
	for (k = 0; k < 5; k++) {
		CHECK(sigtimedwait(&s, &si, &now) > 0, "thread %d: signal %d is missing", i, k);
		SAME(si.si_code, SI_QUEUE);
		SAME(si.si_value.sival_int, i * 100 + k);
	}
	CHECK(sigtimedwait(&s, &si, &now) < 0, "thread %d: one signal too many", i);
	OK(sigpending(&pend));
	SAME(sigismember(&pend, SIGUSR2), i != 0);
	SAME(sigismember(&pend, SIGUSR1), 1); /* the process's own */
	if (i) {
		sigemptyset(&s);
		sigaddset(&s, SIGUSR2);
		/* The C library's sigtimedwait makes SI_USER of it. */
		CHECK(syscall(SYS_rt_sigtimedwait, &s, &si, &now, 8) > 0, "thread %d: no SIGUSR2", i);
		SAME(si.si_code, SI_TKILL);
		SAME(si.si_pid, getpid());
	}
}

static void *run(void *arg)
{
	set_up((long)arg);
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	check((long)arg);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[N];
	sigset_t all;
	long i;

	conf_init(argc, argv);
	sigfillset(&all);
	SYS(sigprocmask(SIG_BLOCK, &all, NULL));
	for (i = 1; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, (void *)i));
	set_up(0);
	SYS(kill(getpid(), SIGUSR1));
	UNTIL(ready_count == N - 1, "the threads");
	conf_ready();
	conf_wait();
	check(0);
	for (i = 1; i < N; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
