// kind: time
// state: a real interval timer that fires all the time, before and after, and one of CPU time
// users: root nobody
// mutate: itimer_entry.iusec
// moving: status
#include "conformance.h"

static volatile int alarms, profs;

static void on_alarm(int sig)
{
	alarms++;
}

static void on_prof(int sig)
{
	profs++;
}

int main(int argc, char **argv)
{
	struct itimerval it = { { 0, 7000 }, { 0, 7000 } }, now;
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	int a, p;

	conf_init(argc, argv);
	SYS(sigaction(SIGALRM, &sa, NULL));
	sa.sa_handler = on_prof;
	SYS(sigaction(SIGPROF, &sa, NULL));
	SYS(setitimer(ITIMER_REAL, &it, NULL));
	it.it_value.tv_usec = it.it_interval.tv_usec = 20000;
	SYS(setitimer(ITIMER_PROF, &it, NULL));
	UNTIL(alarms > 2, "the first alarms");
	conf_ready();
	conf_wait_eintr();
	a = alarms;
	p = profs;
	UNTIL(alarms > a + 5, "alarms after the checkpoint");
	OK(getitimer(ITIMER_REAL, &now));
	SAME(now.it_interval.tv_usec, 7000);
	for (int64_t end = conf_ns(CLOCK_MONOTONIC) + conf_patience_ms() * 1000000; profs < p + 3 && conf_ns(CLOCK_MONOTONIC) < end;)
		;
	CHECK(profs >= p + 3, "the profiling timer is silent");
	conf_pass();
}
