// kind: waiting
// state: timed sleeps, relative and absolute, end when they would have: the time that remained, no error
// users: root nobody
// mutate: fermata.restart_block
// pause: 2s
// nocriu: restore: they end with EINTR, or by a clock that ran on
// nocriu: left: they end with EINTR
// nocriu: mutate: they end with EINTR
#include "conf_waiters.h"
#include <linux/futex.h>
#include <poll.h>
#include <sys/select.h>

/*
 * All sleep for three seconds. They have slept for more than one when the
 * checkpoint comes, and the program is an image for two: a call that began
 * anew ends too late, one that counted the time of the image too early.
 */
#define SECONDS 3
#define BEFORE_MS 1200
#define LATE_MS 900

static struct timespec in_future(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	t.tv_sec += SECONDS;
	return t;
}

static long with_nanosleep(struct waiter *w)
{
	struct timespec t = { SECONDS, 0 };

	return syscall(SYS_nanosleep, &t, &t);
}

static long with_clock_nanosleep(struct waiter *w)
{
	struct timespec t = { SECONDS, 0 };

	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL);
}

static long with_boottime(struct waiter *w)
{
	struct timespec t = { SECONDS, 0 };

	return syscall(SYS_clock_nanosleep, CLOCK_BOOTTIME, 0, &t, NULL);
}

static long with_absolute(struct waiter *w)
{
	struct timespec t = in_future(CLOCK_MONOTONIC);

	return syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static long with_poll(struct waiter *w)
{
	return syscall(SYS_poll, NULL, 0, SECONDS * 1000);
}

static long with_ppoll(struct waiter *w)
{
	struct timespec t = { SECONDS, 0 };

	return syscall(SYS_ppoll, NULL, 0, &t, NULL, 8);
}

static long with_select(struct waiter *w)
{
	struct timeval t = { SECONDS, 0 };

	return syscall(SYS_select, 0, NULL, NULL, NULL, &t);
}

static long with_pselect(struct waiter *w)
{
	struct timespec t = { SECONDS, 0 };

	return syscall(SYS_pselect6, 0, NULL, NULL, NULL, &t, NULL);
}

static int words[3];

static long with_futex(struct waiter *w)
{
	struct timespec t = { SECONDS, 0 };

	return syscall(SYS_futex, &words[0], FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &t, NULL, 0);
}

static long with_futex_absolute(struct waiter *w)
{
	struct timespec t = in_future(CLOCK_MONOTONIC);

	return syscall(SYS_futex, &words[1], FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, &t, NULL, ~0);
}

static long with_cond(struct waiter *w)
{
	pthread_condattr_t attr;
	pthread_cond_t c;
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
	struct timespec t = in_future(CLOCK_MONOTONIC);

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c, &attr);
	pthread_mutex_lock(&m);
	return pthread_cond_timedwait(&c, &m, &t);
}

static struct waiter waiters[] = {
	{ "nanosleep", SYS_nanosleep, with_nanosleep },
	{ "clock_nanosleep", SYS_clock_nanosleep, with_clock_nanosleep },
	{ "clock_nanosleep(BOOTTIME)", SYS_clock_nanosleep, with_boottime },
	{ "clock_nanosleep(ABSTIME)", SYS_clock_nanosleep, with_absolute },
	{ "poll", SYS_poll, with_poll },
	{ "ppoll", SYS_ppoll, with_ppoll },
	{ "select", SYS_select, with_select },
	{ "pselect", SYS_pselect6, with_pselect },
	{ "futex", SYS_futex, with_futex, .want = -1, .want_errno = ETIMEDOUT },
	{ "futex(absolute)", SYS_futex, with_futex_absolute, .want = -1, .want_errno = ETIMEDOUT },
	{ "pthread_cond_timedwait", SYS_futex, with_cond, .want = ETIMEDOUT },
};
#define N (int)(sizeof(waiters) / sizeof(waiters[0]))

int main(int argc, char **argv)
{
	long ms;
	int i;

	conf_init(argc, argv);
	waiters_start(waiters, N);
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
