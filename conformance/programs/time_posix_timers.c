// kind: time
// state: POSIX timers: ids with gaps, clocks, notification, values, intervals, the time that remained
// users: root nobody
// mutate: posix_timer_entry|fermata.posix_timer posix_timer_entry.sival_ptr|fermata.posix_timer.sigval
// mutate: posix_timer_entry.isec=5|fermata.posix_timer.interval_ns=5 posix_timer_entry.vsec=0|fermata.posix_timer.value_ns=1000000000000000
// pause: 2s
// nouser: it looks itself up in /proc, which shows other pids
#include "conformance.h"

/* The kernel's ids: timer_create's own, 4 bytes. */
#define N 8
static const struct {
	clockid_t clock;
	int notify, signo;
	int value, interval; /* seconds; 0: not armed */
} want[N] = {
	{ CLOCK_REALTIME, SIGEV_SIGNAL, 10, 1000, 0 },
	{ CLOCK_MONOTONIC, SIGEV_SIGNAL, 40, 2000, 7 },
	{ CLOCK_BOOTTIME, SIGEV_NONE, 0, 3000, 11 },
	{ CLOCK_MONOTONIC, SIGEV_NONE, 0, 0, 0 },
	{ CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, 12, 4000, 13 },
	{ CLOCK_THREAD_CPUTIME_ID, SIGEV_SIGNAL, 12, 5000, 17 },
	{ CLOCK_MONOTONIC, SIGEV_THREAD_ID, 41, 6000, 19 },
	{ CLOCK_REALTIME, SIGEV_THREAD_ID, 42, 7000, 23 },
};
static int ids[N];
static volatile pid_t other;
static volatile int looked;

static void *run(void *arg)
{
	other = syscall(SYS_gettid);
	conf_wait();
	UNTIL(looked, "main to look");
	return NULL;
}

static int create(int i)
{
	struct sigevent ev = { .sigev_notify = want[i].notify, .sigev_signo = want[i].signo };
	struct itimerspec it = { { want[i].interval, 0 }, { want[i].value, 0 } };
	int id;

	ev.sigev_value.sival_ptr = (void *)(0x7000000000 + i);
	if (want[i].notify == SIGEV_THREAD_ID)
		ev._sigev_un._tid = other;
	SYS(syscall(SYS_timer_create, want[i].clock, &ev, &id));
	if (want[i].value)
		SYS(syscall(SYS_timer_settime, id, 0, &it, NULL));
	return id;
}

/*
 * What /proc/self/timers says of them, which is all but the time; by id, since
 * the kernel lists the newest first.
 */
static void look(char *buf, size_t size)
{
	static char raw[8192];
	char *block[64], *best, *p;
	int n = 0, i, k;

	CHECK(conf_read_file("/proc/self/timers", raw, sizeof(raw)), "no /proc/self/timers");
	for (p = raw; p && *p && n < 64; n++) {
		block[n] = p;
		p = strstr(p + 1, "\nID:");
		if (p)
			*p++ = 0;
	}
	buf[0] = 0;
	for (i = 0; i < n; i++) {
		for (k = i + 1; k < n; k++) {
			if (atoi(block[k] + 4) < atoi(block[i] + 4)) {
				best = block[k];
				block[k] = block[i];
				block[i] = best;
			}
		}
		snprintf(buf + strlen(buf), size - strlen(buf), "%s%s", block[i], block[i][strlen(block[i]) - 1] == '\n' ? "" : "\n");
	}
}

int main(int argc, char **argv)
{
	static char before[8192], now[8192];
	struct itimerspec it;
	pthread_t t;
	int i, id, dead[5];
	double left, gone;
	int64_t t0;

	conf_init(argc, argv);
	t0 = conf_ns(CLOCK_REALTIME);
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(other, "the thread");
	for (i = 0; i < N; i++) {
		/* Ids go up; deleted ones leave gaps. */
		dead[i % 5] = create(3);
		ids[i] = create(i);
		SYS(syscall(SYS_timer_delete, dead[i % 5]));
	}
	look(before, sizeof(before));
	conf_ready();
	conf_wait();
	look(now, sizeof(now));
	CHECK(!strcmp(now, before), "timers are\n%s\nwere\n%s", now, before);
	for (i = 0; i < N; i++) {
		OK(syscall(SYS_timer_gettime, ids[i], &it));
		SAME(it.it_interval.tv_sec, want[i].interval);
		left = it.it_value.tv_sec + it.it_value.tv_nsec / 1e9;
		if (want[i].clock == CLOCK_REALTIME) /* relative: may or may not count the image's time */
			gone = (conf_ns(CLOCK_REALTIME) - t0) / 1e9;
		else
			gone = conf_lived_ms(t0) / 1e3;
		CHECK(left <= want[i].value && left >= want[i].value - gone - 0.025, "timer %d has %g s left", i, left);
	}
	looked = 1;
	for (i = 0; i < N; i++)
		OK(syscall(SYS_timer_delete, ids[i]));
	/* No others, and new ones can be made. */
	look(now, sizeof(now));
	CHECK(!now[0], "further timers: %s", now);
	id = create(0);
	OK(syscall(SYS_timer_delete, id));
	PT(pthread_join(t, NULL));
	conf_pass();
}
