// kind: time
// state: POSIX timers whose signals are pending, to the process and to a thread: told once, and the timers go on
// users: root nobody
// mutate: task_core_entry.signals_s thread_core_entry.signals_p
#include "conformance.h"

static volatile pid_t other;
static const struct timespec none = { 0, 0 };

static void take(int sig, int id, long value)
{
	struct itimerspec next;
	siginfo_t si;
	sigset_t s;
	int64_t t0 = conf_ns(CLOCK_MONOTONIC);

	/* When it expires again, it may be rightly pending again. */
	OK(syscall(SYS_timer_gettime, id, &next));
	sigemptyset(&s);
	sigaddset(&s, sig);
	CHECK(sigtimedwait(&s, &si, &none) > 0, "the signal of timer %d isn't pending", id);
	SAME(si.si_code, SI_TIMER);
	SAME(si.si_timerid, id);
	SAME((long)si.si_value.sival_ptr, value);
	CHECK(sigtimedwait(&s, &si, &none) < 0 || conf_ns(CLOCK_MONOTONIC) - t0 >= next.it_value.tv_nsec,
	      "the signal of timer %d is pending twice", id);
	/* It goes on. */
	CHECK(sigwaitinfo(&s, &si) > 0, "no further signal of timer %d: %s", id, strerror(errno));
	SAME(si.si_timerid, id);
	SAME((long)si.si_value.sival_ptr, value);
}

static volatile int id[2];

static void *run(void *arg)
{
	other = syscall(SYS_gettid);
	conf_wait();
	take(SIGRTMIN + 1, id[1], 0x2234567891);
	return NULL;
}

int main(int argc, char **argv)
{
	struct itimerspec it = { { 0, 300000000 }, { 0, 1000000 } };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	pthread_t t;
	sigset_t s;
	int i, n;

	conf_init(argc, argv);
	sigemptyset(&s);
	sigaddset(&s, SIGRTMIN);
	sigaddset(&s, SIGRTMIN + 1);
	SYS(sigprocmask(SIG_BLOCK, &s, NULL));
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(other, "the thread");
	for (i = 0; i < 2; i++) {
		ev.sigev_value.sival_ptr = (void *)(0x1234567890 + i * 0x1000000001);
		if (i) {
			ev.sigev_notify = SIGEV_THREAD_ID;
			ev.sigev_signo = SIGRTMIN + 1;
			ev._sigev_un._tid = other;
		}
		SYS(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &n));
		id[i] = n;
		SYS(syscall(SYS_timer_settime, n, 0, &it, NULL));
	}
	conf_sleep_ms(50);
	conf_ready();
	conf_wait();
	take(SIGRTMIN, id[0], 0x1234567890);
	PT(pthread_join(t, NULL));
	conf_pass();
}
