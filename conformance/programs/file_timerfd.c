// kind: notification
// state: timerfd on four clocks: remaining time, interval, expirations not yet read, absolute, disarmed, one asleep in it
// users: root nobody
// mutate: timerfd_entry.vsec timerfd_entry.isec timerfd_entry.ticks timerfd_entry.clockid
// short: yes
// nocriu: counts one expiration of a fast timer
// nouser: it looks itself up in /proc, which shows other pids
#include "memfile.h"
#include <poll.h>
#include <sys/timerfd.h>

static int timer(int clock, int flags, long value_ms, long interval_ms, int settime)
{
	int fd = SYS(timerfd_create(clock, flags));
	struct itimerspec it = { .it_value = { value_ms / 1000, value_ms % 1000 * 1000000 },
				 .it_interval = { interval_ms / 1000, interval_ms % 1000 * 1000000 } };

	if (settime & TFD_TIMER_ABSTIME) {
		int64_t t = conf_ns(clock) + value_ms * 1000000;

		it.it_value.tv_sec = t / 1000000000;
		it.it_value.tv_nsec = t % 1000000000;
	}
	SYS(timerfd_settime(fd, settime, &it, NULL));
	return fd;
}

static long left_ms(int fd)
{
	struct itimerspec it;

	OK(timerfd_gettime(fd, &it));
	return it.it_value.tv_sec * 1000 + it.it_value.tv_nsec / 1000000;
}

static long interval_ms(int fd)
{
	struct itimerspec it;

	OK(timerfd_gettime(fd, &it));
	return it.it_interval.tv_sec * 1000 + it.it_interval.tv_nsec / 1000000;
}

static int slow;

static void child(void)
{
	int fd = slow;
	uint64_t n;

	SAME(read(fd, &n, 8), 8);
	CHECK(n >= 1, "the sleeper read %lu expirations", n);
}

/* near fails unless at most a minute of a long time is gone. */
static void near(long now, long was, const char *what)
{
	CHECK(now <= was && now > was - 60000, "%s: %ld ms are left, of %ld", what, now, was);
}

int main(int argc, char **argv)
{
	int mono, real, boot, abs_mono, abs_real, off, fired, ticks;
	char clock[16];
	uint64_t n, more;
	int64_t since;
	long went;
	pid_t pid;

	conf_init(argc, argv);
	mono = timer(CLOCK_MONOTONIC, TFD_CLOEXEC, 1000000, 250000, 0);
	real = timer(CLOCK_REALTIME, 0, 2000000, 0, 0);
	boot = timer(CLOCK_BOOTTIME, TFD_NONBLOCK, 3000000, 3000, 0);
	abs_mono = timer(CLOCK_MONOTONIC, 0, 4000000, 0, TFD_TIMER_ABSTIME);
	abs_real = timer(CLOCK_REALTIME, 0, 5000000, 7000, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
	off = timer(CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 0, 0);
	fired = timer(CLOCK_MONOTONIC, TFD_NONBLOCK, 1, 0, 0);
	ticks = timer(CLOCK_MONOTONIC, TFD_NONBLOCK, 1, 1, 0);
	slow = timer(CLOCK_MONOTONIC, 0, 6000000, 0, 0);
	pid = mf_spawn(child);
	UNTIL(conf_in_syscall(pid, SYS_read), "the child to sleep in read");
	conf_sleep_ms(30);
	conf_ready();
	conf_wait();
	near(left_ms(mono), 1000000, "monotonic");
	SAME(interval_ms(mono), 250000);
	SAME(fcntl(mono, F_GETFD), FD_CLOEXEC);
	near(left_ms(real), 2000000, "real time");
	SAME(interval_ms(real), 0);
	near(left_ms(boot), 3000000, "boot time");
	SAME(interval_ms(boot), 3000);
	SAME(fcntl(boot, F_GETFL), O_RDWR | O_NONBLOCK);
	near(left_ms(abs_mono), 4000000, "absolute monotonic");
	near(left_ms(abs_real), 5000000, "absolute real time");
	SAME(interval_ms(abs_real), 7000);
	SAME(left_ms(off), 0);
	CHECK(read(off, &n, 8) < 0 && errno == EAGAIN, "the disarmed timer has expired");
	SAME(read(fired, &n, 8), 8);
	SAME(n, 1);
	CHECK(read(fired, &n, 8) < 0 && errno == EAGAIN, "the timer has expired twice");
	since = conf_ns(CLOCK_MONOTONIC);
	SAME(read(ticks, &n, 8), 8);
	CHECK(n >= 30, "only %lu expirations of the fast timer are left", n);
	/* And it goes on, once a millisecond: a processor that stood still shows in both clocks. */
	for (more = 0; more < 5; more += n) {
		CHECK(poll(&(struct pollfd){ .fd = ticks, .events = POLLIN }, 1, conf_patience_ms()) == 1, "the fast timer stands still after %lu more", more);
		SAME(read(ticks, &n, 8), 8);
	}
	went = (conf_ns(CLOCK_MONOTONIC) - since) / 1000000;
	CHECK((long)more <= went + 1, "%lu expirations in %ld milliseconds", more, went);
	CHECK(mf_fdinfo(mono, "clockid", clock, sizeof(clock)) && atoi(clock) == CLOCK_MONOTONIC, "clock of mono is %s", clock);
	CHECK(mf_fdinfo(real, "clockid", clock, sizeof(clock)) && atoi(clock) == CLOCK_REALTIME, "clock of real is %s", clock);
	CHECK(mf_fdinfo(boot, "clockid", clock, sizeof(clock)) && atoi(clock) == CLOCK_BOOTTIME, "clock of boot is %s", clock);
	CHECK(mf_fdinfo(abs_real, "settime flags", clock, sizeof(clock)) && strtol(clock, NULL, 8) == 3, "flags of abs_real are %s", clock);
	/* The sleeper sleeps on the same timer that we can set. */
	near(left_ms(slow), 6000000, "the sleeper's");
	UNTIL(conf_in_syscall(pid, SYS_read), "the child to sleep in read");
	OK(timerfd_settime(slow, 0, &(struct itimerspec){ .it_value = { 0, 1000000 } }, NULL));
	conf_reap_ok(pid);
	conf_pass();
}
