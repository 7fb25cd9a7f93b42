// kind: time
// state: interval timers, real, virtual and profiling, with the time that remained
// users: root nobody
// mutate: itimer_entry.isec=9 itimer_entry.vsec=9
// pause: 2s
#include "conformance.h"

static const int which[] = { ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF };

int main(int argc, char **argv)
{
	struct itimerval it[3], now;
	int64_t t0, dt;
	int i;

	conf_init(argc, argv);
	t0 = conf_ns(CLOCK_REALTIME);
	for (i = 0; i < 3; i++) {
		it[i].it_value.tv_sec = 100 + i;
		it[i].it_value.tv_usec = 500000;
		it[i].it_interval.tv_sec = 30 + i;
		it[i].it_interval.tv_usec = 250000;
		SYS(setitimer(which[i], &it[i], NULL));
	}
	conf_ready();
	conf_wait();
	for (i = 0; i < 3; i++) {
		OK(getitimer(which[i], &now));
		SAME(now.it_interval.tv_sec, 30 + i);
		SAME(now.it_interval.tv_usec, 250000);
		dt = (it[i].it_value.tv_sec - now.it_value.tv_sec) * 1000LL + (it[i].it_value.tv_usec - now.it_value.tv_usec) / 1000;
		/* What the timer has counted: the time the program lived, not that of the image. */
		CHECK(dt >= -25, /* a tick or two, by the kernel's own rounding */
		      "timer %d gained %ld ms", i, (long)-dt);
		CHECK(dt <= conf_lived_ms(t0) + 25, "timer %d lost %ld ms", i, (long)(dt - conf_lived_ms(t0)));
	}
	conf_pass();
}
