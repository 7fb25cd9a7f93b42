// kind: time
// state: CLOCK_MONOTONIC and CLOCK_BOOTTIME go on where they stopped; CLOCK_REALTIME is the world's
// users: root nobody
// mutate: timens_entry|fermata.manifest.monotonic_ns
// pause: 2s
#include "conformance.h"

/*
 * A clock that jumped by the two seconds the program was an image shows more
 * time in all than the program has lived; one that went back is seen by the step
 * over the checkpoint.
 */
int main(int argc, char **argv)
{
	static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE };
	int64_t first[4], last[4], step, real, now;
	struct timespec ms = { 0, 1000000 };
	int i;

	conf_init(argc, argv);
	real = conf_ns(CLOCK_REALTIME);
	for (i = 0; i < 4; i++)
		first[i] = last[i] = conf_ns(clocks[i]);
	conf_ready();
	while (!conf_gone()) {
		syscall(SYS_nanosleep, &ms, NULL);
		for (i = 0; i < 4; i++) {
			now = conf_ns(clocks[i]);
			step = now - last[i];
			CHECK(step >= 0, "clock %d went back by %ld ns", clocks[i], (long)-step);
			last[i] = now;
		}
	}
	for (i = 0; i < 4; i++) {
		step = (conf_ns(clocks[i]) - first[i]) / 1000000 - conf_lived_ms(real);
		CHECK(step <= 25, "clock %d shows %ld ms more than we have lived", clocks[i], (long)step);
	}
	CHECK(conf_ns(CLOCK_REALTIME) > real, "the wall clock went back");
	conf_pass();
}
