/*
 * Threads that sit in system calls across a checkpoint. A program has a table
 * of waiters; each runs its call in a thread of its own, which must still
 * sleep in it after the checkpoint and end as if nothing had happened.
 */
#ifndef CONF_WAITERS_H
#define CONF_WAITERS_H

#include "conformance.h"

struct waiter {
	const char *name;
	long nr;			 /* the system call it sleeps in */
	long (*call)(struct waiter *w);	 /* result, or -1 and errno */
	void (*release)(struct waiter *w); /* makes the call return; NULL: time does */
	long want;			 /* the right result */
	int want_errno;			 /* the right error, of -1 */
	int fd[2];			 /* for the program's use */
	/* filled in */
	pid_t tid;
	pthread_t thread;
	long result;
	int error, done;
	int64_t began, ended; /* CLOCK_MONOTONIC, ns */
};

/*
 * A waiter's thread stays until the checkpoint is over, even when its call was
 * not long enough for that on a slow machine: it is part of what is compared.
 */
static CONF_UNUSED void *waiter_thread(void *arg)
{
	struct waiter *w = arg;

	w->began = conf_ns(CLOCK_MONOTONIC);
	__atomic_store_n(&w->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	errno = 0;
	w->result = w->call(w);
	w->error = errno;
	w->ended = conf_ns(CLOCK_MONOTONIC);
	__atomic_store_n(&w->done, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	return NULL;
}

static CONF_UNUSED void waiters_start(struct waiter *ws, int n)
{
	int i;

	for (i = 0; i < n; i++)
		PT(pthread_create(&ws[i].thread, NULL, waiter_thread, &ws[i]));
	for (i = 0; i < n; i++)
		UNTIL(ws[i].tid && conf_in_syscall(ws[i].tid, ws[i].nr), ws[i].name);
}

static char waiters_wrong[800] CONF_UNUSED;

/* waiters_complain gathers what is wrong: all of it goes into one verdict. */
static CONF_UNUSED __attribute__((format(printf, 1, 2))) void waiters_complain(const char *fmt, ...)
{
	size_t n = strlen(waiters_wrong);
	va_list ap;

	va_start(ap, fmt);
	if (n)
		n += snprintf(waiters_wrong + n, sizeof(waiters_wrong) - n, "; ");
	if (n < sizeof(waiters_wrong))
		vsnprintf(waiters_wrong + n, sizeof(waiters_wrong) - n, fmt, ap);
	va_end(ap);
}

/*
 * waiters_stall is the longest time in milliseconds for which the main thread
 * did not get on, although it had nothing to do but to sleep for one: so long
 * was the machine, or the checkpoint, busy, and the waiters may be late by that.
 */
static long waiters_stall CONF_UNUSED;

/* waiters_watch waits for go, or for the waiters to be done, and measures it. */
static CONF_UNUSED void waiters_watch(struct waiter *ws, int n)
{
	struct timespec ms = { 0, 1000000 };
	int64_t last = conf_ns(CLOCK_MONOTONIC), now;
	long left = ws ? conf_patience_ms() : 0;
	int i;

	for (;; last = now) {
		if (ws) {
			for (i = 0; i < n && ws[i].done; i++)
				;
			if (i == n || left-- == 0)
				return;
		} else if (conf_gone()) {
			return;
		}
		if (syscall(SYS_nanosleep, &ms, NULL) < 0 && !conf_eintr_ok(errno))
			conf_fail("nanosleep while watching the waiters: %s", strerror(errno));
		now = conf_ns(CLOCK_MONOTONIC);
		if ((now - last) / 1000000 > waiters_stall)
			waiters_stall = (now - last) / 1000000;
	}
}

/* waiters_check joins one thread, whose call must have ended in the right way. */
static CONF_UNUSED bool waiter_joined(struct waiter *w)
{
	struct timespec limit;
	int r;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 1 + conf_patience_ms() / 1000;
	r = pthread_timedjoin_np(w->thread, NULL, &limit);
	if (r) {
		waiters_complain("%s does not end", w->name);
		return false;
	}
	if (w->result != w->want || (w->want == -1 && w->error != w->want_errno)) {
		if (!(w->result == -1 && conf_eintr_ok(w->error)))
			waiters_complain("%s returned %ld: %s", w->name, w->result, strerror(w->error));
		return false;
	}
	return true;
}

/*
 * waiters_finish is for calls without a time: after go they sleep still; each
 * is released and ends.
 */
static CONF_UNUSED void waiters_finish(struct waiter *ws, int n)
{
	int i;

	conf_sleep_ms(20);
	for (i = 0; i < n; i++) {
		if (ws[i].done && !(ws[i].result == -1 && conf_eintr_ok(ws[i].error)))
			waiters_complain("%s ended too early with %ld: %s", ws[i].name, ws[i].result, strerror(ws[i].error));
	}
	for (i = 0; i < n; i++) {
		if (!ws[i].done)
			ws[i].release(&ws[i]);
		waiter_joined(&ws[i]);
	}
	if (waiters_wrong[0])
		conf_fail("%s", waiters_wrong);
}

#endif
