// One thread in one timed call: it says how the call ended, and after how long.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long ms = atol(argv[2]);
	struct timespec a, b, t = { ms / 1000, ms % 1000 * 1000000 };
	static int word;
	long r = -1;
	clock_gettime(CLOCK_MONOTONIC, &a);
	if (!strcmp(argv[1], "nanosleep")) r = syscall(SYS_nanosleep, &t, NULL);
	if (!strcmp(argv[1], "clock_nanosleep")) r = syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL);
	if (!strcmp(argv[1], "poll")) r = poll(NULL, 0, ms);
	if (!strcmp(argv[1], "futex")) {
		r = syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t);
		r = r == -1 && errno == ETIMEDOUT ? 0 : -1;
	}
	int e = errno;
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%ld %d %ld\n", r, r ? e : 0, (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000);
	return 0;
}
