// kind: waiting
// state: timed sleeps whose limit has been overwritten since they began: the time that remained all the same
// users: root nobody
// mutate: fermata.restart_block
// pause: 2s
// nocriu: restore: they end with EINTR, or by what the memory says now
// nocriu: left: they end with EINTR
// nocriu: mutate: they end with EINTR
// nouser: when a call ends whose limit was overwritten only root can see
#include "conf_waiters.h"
#include <linux/futex.h>

/*
 * All sleep for three seconds, by a limit in memory that has said something else
 * from the moment on when they slept: a tenth of a second, or a minute.
 */
#define SECONDS 3
#define BEFORE_MS 1200
#define LATE_MS 900

enum { NANO, CLOCK, BOOT, FUTEX, NANO_LONG, FUTEX_LONG, N };

static struct timespec limit[N];
static int words[2];

static long with_nanosleep(struct waiter *w)
{
	return syscall(SYS_nanosleep, &limit[NANO], NULL);
}

static long with_clock_nanosleep(struct waiter *w)
{
	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &limit[CLOCK], NULL);
}

static long with_boottime(struct waiter *w)
{
	return syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &limit[BOOT], NULL);
}

static long with_futex(struct waiter *w)
{
	return syscall(SYS_futex, &words[0], FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &limit[FUTEX], NULL, 0);
}

static long with_nanosleep_long(struct waiter *w)
{
	return syscall(SYS_nanosleep, &limit[NANO_LONG], NULL);
}

static long with_futex_long(struct waiter *w)
{
	return syscall(SYS_futex, &words[1], FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &limit[FUTEX_LONG], NULL, 0);
}

static struct waiter waiters[N] = {
	[NANO] = { "nanosleep", SYS_nanosleep, with_nanosleep },
	[CLOCK] = { "clock_nanosleep", SYS_clock_nanosleep, with_clock_nanosleep },
	[BOOT] = { "clock_nanosleep(BOOTTIME)", SYS_clock_nanosleep, with_boottime },
	[FUTEX] = { "futex", SYS_futex, with_futex, .want = -1, .want_errno = ETIMEDOUT },
	[NANO_LONG] = { "nanosleep, overwritten with more", SYS_nanosleep, with_nanosleep_long },
	[FUTEX_LONG] = { "futex, overwritten with more", SYS_futex, with_futex_long, .want = -1, .want_errno = ETIMEDOUT },
};

int main(int argc, char **argv)
{
	long ms;
	int i;

	conf_init(argc, argv);
	for (i = 0; i < N; i++)
		limit[i].tv_sec = SECONDS;
	waiters_start(waiters, N);
	for (i = 0; i < N; i++) {
		limit[i].tv_sec = i >= NANO_LONG ? 60 : 0;
		limit[i].tv_nsec = 100000000;
	}
	conf_sleep_ms(BEFORE_MS);
	conf_ready();
	waiters_watch(NULL, 0);
	waiters_watch(waiters, N);
	for (i = 0; i < N; i++) {
		if (!waiter_joined(&waiters[i]))
			continue;
		ms = (waiters[i].ended - waiters[i].began) / 1000000;
		if (ms < SECONDS * 1000 - 5)
			waiters_complain("%s slept for %ld ms only", waiters[i].name, ms);
		if (ms > SECONDS * 1000 + LATE_MS + waiters_stall)
			waiters_complain("%s slept for %ld ms (the machine stood still for %ld)", waiters[i].name, ms, waiters_stall);
	}
	if (waiters_wrong[0])
		conf_fail("%s", waiters_wrong);
	conf_pass();
}
