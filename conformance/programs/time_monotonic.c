// kind: time
// state: CLOCK_MONOTONIC and CLOCK_BOOTTIME go on where they stopped; CLOCK_REALTIME is the world's
// users: root nobody
// mutate: timens_entry|fermata.manifest.monotonic_ns
// pause: 2s
#include "conformance.h"

/*
 * Each turn of the loop is short: a clock that jumped by the two seconds the
 * program was an image (or went back) is seen by the step over the checkpoint.
 */
int main(int argc, char **argv)
{
	static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE };
	int64_t last[4], step, most[4] = { 0 }, real, now;
	struct timespec ms = { 0, 1000000 };
	int i;

	conf_init(argc, argv);
	for (i = 0; i < 4; i++)
		last[i] = conf_ns(clocks[i]);
	real = conf_ns(CLOCK_REALTIME);
	conf_ready();
	while (!conf_gone()) {
		syscall(SYS_nanosleep, &ms, NULL);
		for (i = 0; i < 4; i++) {
			now = conf_ns(clocks[i]);
			step = now - last[i];
			CHECK(step >= 0, "clock %d went back by %ld ns", clocks[i], (long)-step);
			if (step > most[i])
				most[i] = step;
			last[i] = now;
		}
	}
	for (i = 0; i < 4; i++)
		CHECK(most[i] < 1500000000, "clock %d jumped by %ld ms", clocks[i], (long)(most[i] / 1000000));
	CHECK(conf_ns(CLOCK_REALTIME) > real, "the wall clock went back");
	conf_pass();
}
