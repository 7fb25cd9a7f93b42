// kind: time
// state: a POSIX timer whose signal is pending, with its overruns
// users: root nobody
// mutate: task_core_entry.signals_s fermata.posix_timer.missed
// nocriu: restore: the overruns of a pending timer are lost
// nocriu: mutate: the overruns of a pending timer are lost
// nouser: how often a timer has expired meanwhile only root can see
#include "conformance.h"

int main(int argc, char **argv)
{
	struct itimerspec it = { { 0, 2000000 }, { 0, 2000000 } };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	struct timespec none = { 0, 0 };
	siginfo_t si;
	sigset_t s;
	int64_t began;
	int id, overruns;

	conf_init(argc, argv);
	ev.sigev_value.sival_ptr = (void *)0x1234567890;
	sigemptyset(&s);
	sigaddset(&s, SIGRTMIN);
	SYS(sigprocmask(SIG_BLOCK, &s, NULL));
	SYS(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id));
	began = conf_ns(CLOCK_MONOTONIC);
	SYS(syscall(SYS_timer_settime, id, 0, &it, NULL));
	conf_sleep_ms(1000); /* about five hundred */
	conf_ready();
	conf_wait();
	CHECK(sigtimedwait(&s, &si, &none) > 0, "the timer's signal isn't pending");
	SAME(si.si_code, SI_TIMER);
	SAME(si.si_timerid, id);
	SAME((long)si.si_value.sival_ptr, 0x1234567890);
	overruns = OK(syscall(SYS_timer_getoverrun, id));
	CHECK(overruns >= 480, "%d overruns", overruns);
	CHECK(conf_ns(CLOCK_MONOTONIC) - began >= overruns * 2000000LL, "%d overruns in %lld ns", overruns,
	      (long long)(conf_ns(CLOCK_MONOTONIC) - began));
	SAME(si.si_overrun, overruns);
	/* It goes on. */
	CHECK(sigwaitinfo(&s, &si) > 0, "no further signal: %s", strerror(errno));
	SAME(si.si_timerid, id);
	conf_pass();
}
