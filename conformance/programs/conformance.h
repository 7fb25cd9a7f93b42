/*
 * Shared helpers of the conformance programs. Each program sets up one kind of
 * state, calls conf_ready(), waits in conf_wait() while it is checkpointed,
 * and then looks for itself whether the state is as it was:
 *
 *	int main(int argc, char **argv)
 *	{
 *		conf_init(argc, argv);
 *		... set up ...
 *		conf_ready();
 *		conf_wait();
 *		CHECK(now == before, "the value is %d, was %d", now, before);
 *		conf_pass();
 *	}
 *
 * A set-up step that fails is written SYS(call); it ends the program with the
 * verdict "FAIL set-up", so that a broken machine isn't taken for a broken
 * restore. Every process of the program may call the verdict functions; the
 * first verdict counts.
 */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONF_UNUSED __attribute__((unused))

/* The directory given by the harness; absolute. */
static char conf_dir[PATH_MAX] CONF_UNUSED;

/* conf_path gives DIR/name in one of a few static buffers. */
static CONF_UNUSED const char *conf_path(const char *name)
{
	static __thread char buf[4][PATH_MAX + 64];
	static __thread unsigned next;
	char *b = buf[next++ % 4];

	snprintf(b, sizeof(buf[0]), "%s/%s", conf_dir, name);
	return b;
}

/*
 * conf_chdir_root says that the program's root is DIR now (after chroot), so
 * that the files of the protocol are found at "/".
 */
static CONF_UNUSED void conf_root_is_dir(void)
{
	strcpy(conf_dir, "");
}

static CONF_UNUSED bool conf_user_is_root(void)
{
	return getuid() == 0;
}

/* conf_log writes a line into DIR/log (standard output). */
static CONF_UNUSED __attribute__((format(printf, 1, 2))) void conf_log(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(1, line, n) < 0)
		return;
}

/* conf_verdict publishes the verdict whole; only the first one stays. */
static CONF_UNUSED void conf_verdict(const char *text)
{
	char tmp[64];
	const char *from, *to;
	int fd;

	snprintf(tmp, sizeof(tmp), ".verdict.%ld", syscall(SYS_gettid));
	from = conf_path(tmp);
	to = conf_path("verdict");
	fd = open(from, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0) {
		conf_log("cannot write the verdict %s: %s: %s", from, text, strerror(errno));
		return;
	}
	if (write(fd, text, strlen(text)) < 0)
		conf_log("verdict: %s", strerror(errno));
	close(fd);
	if (link(from, to) < 0)
		conf_log("a later verdict: %s (%s)", text, strerror(errno));
	unlink(from);
}

/* conf_fail ends the program: the state isn't what it was. */
static CONF_UNUSED __attribute__((noreturn, format(printf, 1, 2))) void conf_fail(const char *fmt, ...)
{
	char text[1024] = "FAIL ";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + 5, sizeof(text) - 5, fmt, ap);
	va_end(ap);
	conf_log("%s", text);
	conf_verdict(text);
	_exit(1);
}

/* conf_pass ends the program: everything is as it was. */
static CONF_UNUSED __attribute__((noreturn)) void conf_pass(void)
{
	conf_verdict("PASS");
	_exit(0);
}

/*
 * conf_skip ends the program before it is ready: this machine or user cannot
 * have the state (no such instruction set, no such kernel feature). The
 * harness counts and reports it.
 */
static CONF_UNUSED __attribute__((noreturn, format(printf, 1, 2))) void conf_skip(const char *fmt, ...)
{
	char text[1024] = "SKIP ";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + 5, sizeof(text) - 5, fmt, ap);
	va_end(ap);
	conf_verdict(text);
	_exit(0);
}

/* CHECK(condition, format, ...) is conf_fail unless the condition holds. */
#define CHECK(cond, ...)                        \
	do {                                    \
		if (!(cond))                    \
			conf_fail(__VA_ARGS__); \
	} while (0)

/* SAME(now, before) compares two integers. */
#define SAME(now, before)                                                           \
	do {                                                                        \
		long long conf_n = (long long)(now), conf_b = (long long)(before);  \
		if (conf_n != conf_b)                                               \
			conf_fail("line %d: %s is %lld (0x%llx), not %lld (0x%llx)", \
				  __LINE__, #now, conf_n, conf_n, conf_b, conf_b);  \
	} while (0)

/* SYS(call) is the call's result, or the end of the program when it is -1. */
#define SYS(call)                                                                        \
	({                                                                               \
		__typeof__(call) conf_r = (call);                                        \
		if ((long)conf_r == -1)                                                  \
			conf_fail("set-up, line %d: %s: %s", __LINE__, #call, strerror(errno)); \
		conf_r;                                                                  \
	})

/* OK(call) is the same after the checkpoint: the call must work. */
#define OK(call)                                                                    \
	({                                                                          \
		__typeof__(call) conf_r = (call);                                   \
		if ((long)conf_r == -1)                                             \
			conf_fail("line %d: %s: %s", __LINE__, #call, strerror(errno)); \
		conf_r;                                                             \
	})

/* PT(call) is for pthread functions, which return the error. */
#define PT(call)                                                                        \
	do {                                                                            \
		int conf_r = (call);                                                    \
		if (conf_r)                                                             \
			conf_fail("line %d: %s: %s", __LINE__, #call, strerror(conf_r)); \
	} while (0)

static CONF_UNUSED void conf_init(int argc, char **argv)
{
	if (argc < 2 || argv[1][0] != '/') {
		fprintf(stderr, "usage: %s /DIR\n", argv[0]);
		exit(2);
	}
	snprintf(conf_dir, sizeof(conf_dir), "%s", argv[1]);
}

/* conf_ready says that the state is set up: the checkpoint may come any time. */
static CONF_UNUSED void conf_ready(void)
{
	/* No descriptor is opened, so none is seen in the act of being closed. */
	SYS(mknod(conf_path("ready"), S_IFREG | 0644, 0));
}

/* conf_gone says whether the harness has said "go". */
static CONF_UNUSED bool conf_gone(void)
{
	return access(conf_path("go"), F_OK) == 0;
}

/*
 * conf_eintr_ok says whether a system call may have been interrupted by the
 * checkpoint: never by fermata; other tools (CRIU documents it) may do so, and
 * the harness then says so in the environment.
 */
static CONF_UNUSED bool conf_eintr_ok(int error)
{
	return error == EINTR && getenv("CONFORMANCE_EINTR");
}

/*
 * conf_wait returns when the harness says "go", with the checkpoint behind us.
 * It uses nothing but access and a raw nanosleep, and fails if the sleep ever
 * ends with an error.
 */
static CONF_UNUSED void conf_wait(void)
{
	struct timespec ms = { 0, 1000000 };

	while (!conf_gone())
		if (syscall(SYS_nanosleep, &ms, NULL) < 0 && !conf_eintr_ok(errno))
			conf_fail("nanosleep while waiting for go: %s", strerror(errno));
}

/*
 * conf_wait_eintr is conf_wait for a program whose signal handlers run in the
 * main thread meanwhile.
 */
static CONF_UNUSED void conf_wait_eintr(void)
{
	struct timespec ms = { 0, 1000000 };

	while (!conf_gone())
		if (syscall(SYS_nanosleep, &ms, NULL) < 0 && errno != EINTR)
			conf_fail("nanosleep while waiting for go: %s", strerror(errno));
}

/* conf_sleep sleeps the whole time, whatever signals come. */
static CONF_UNUSED void conf_sleep_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
		;
}

/* conf_ns is the clock's time in nanoseconds. */
static CONF_UNUSED int64_t conf_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/*
 * conf_lived_ms is for how long the program has lived, at most, since the
 * CLOCK_REALTIME since: without the time that it was nothing but an image, which
 * the harness counts in the file "dead", in nanoseconds.
 */
static CONF_UNUSED int64_t conf_lived_ms(int64_t since)
{
	char buf[32] = "0";
	int fd = open(conf_path("dead"), O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		CHECK(read(fd, buf, sizeof(buf) - 1) > 0, "the file \"dead\": %s", strerror(errno));
		close(fd);
	}
	return (conf_ns(CLOCK_REALTIME) - since - atoll(buf)) / 1000000;
}

/* conf_shared is zeroed memory that children share. */
static CONF_UNUSED void *conf_shared(size_t size)
{
	return SYS(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

/*
 * conf_patience_ms is how long to wait for what must come. The harness makes
 * it short where it expects the program to fail: after the checkpoint.
 */
static CONF_UNUSED long conf_patience_ms(void)
{
	const char *v = getenv("CONFORMANCE_PATIENCE_MS");

	return v && conf_gone() ? atol(v) : 30000;
}

/* UNTIL(condition, what) polls for as long as our patience lasts. */
#define UNTIL(cond, what)                                                     \
	do {                                                                  \
		long conf_left = conf_patience_ms();                          \
		for (; !(cond); conf_left--) {                                \
			if (conf_left < 0)                                    \
				conf_fail("line %d: waited in vain for %s", __LINE__, what); \
			conf_sleep_ms(1);                                     \
		}                                                             \
	} while (0)

/* conf_read_file reads a small file (of /proc) whole; false if it cannot. */
static CONF_UNUSED bool conf_read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t r;

	if (fd < 0)
		return false;
	while (n < size - 1 && (r = read(fd, buf + n, size - 1 - n)) > 0)
		n += r;
	buf[n] = 0;
	close(fd);
	return true;
}

/*
 * conf_task_state is the state letter of a task (R S D T t Z), 0 when there is
 * none. tid may be any thread's.
 */
static CONF_UNUSED char conf_task_state(pid_t tid)
{
	char path[64], buf[1024], *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	if (!conf_read_file(path, buf, sizeof(buf)))
		return 0;
	p = strrchr(buf, ')');
	return p ? p[2] : 0;
}

/*
 * conf_in_syscall says whether the task sleeps in the system call nr.
 */
static CONF_UNUSED bool conf_in_syscall(pid_t tid, long nr)
{
	char path[64], buf[256];

	snprintf(path, sizeof(path), "/proc/%d/syscall", tid);
	if (!conf_read_file(path, buf, sizeof(buf)) || !(buf[0] >= '0' && buf[0] <= '9'))
		return false;
	return atol(buf) == nr && conf_task_state(tid) == 'S';
}

/* conf_status_field copies the value of a line of /proc/TID/status. */
static CONF_UNUSED void conf_status_field(pid_t tid, const char *name, char *val, size_t size)
{
	char path[64], buf[8192], key[64], *p, *e;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	snprintf(key, sizeof(key), "\n%s:", name);
	CHECK(conf_read_file(path, buf, sizeof(buf)), "cannot read %s", path);
	p = strstr(buf, key);
	CHECK(p, "%s has no %s", path, name);
	p += strlen(key);
	while (*p == '\t' || *p == ' ')
		p++;
	e = strchr(p, '\n');
	snprintf(val, size, "%.*s", (int)(e - p), p);
}

/*
 * conf_join waits for a child and fails unless it exited with status 0.
 */
static CONF_UNUSED void conf_reap_ok(pid_t pid)
{
	int st;
	pid_t r;

	do
		r = waitpid(pid, &st, 0);
	while (r < 0 && errno == EINTR);
	CHECK(r == pid, "waiting for child %d: %s", pid, strerror(errno));
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0, "child %d ended with status 0x%x", pid, st);
}

#endif
