// kind: waiting
// state: futex waits without a limit: private, shared with another process, priority-inheriting, several at once
// users: root nobody
// mutate: user_x86_regs_entry.di=0
// unprivileged: only root can read shared anonymous memory whole
#include "conf_waiters.h"
#include <linux/futex.h>

static int word, bits;
static int *shared;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, pi;
static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static pthread_barrier_t barrier;
static int vec_words[3];

struct waitv {
	uint64_t val, uaddr;
	uint32_t flags, reserved;
};

static long with_wait(struct waiter *w)
{
	return syscall(SYS_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NULL, NULL, 0);
}

static void wake_wait(struct waiter *w)
{
	word = 1;
	SAME(syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 10, NULL, NULL, 0), 1);
}

static long with_bits(struct waiter *w)
{
	return syscall(SYS_futex, &bits, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, NULL, NULL, 0x10);
}

static void wake_bits(struct waiter *w)
{
	/* Other bits must not wake it. */
	SAME(syscall(SYS_futex, &bits, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 10, NULL, NULL, 0xf), 0);
	SAME(syscall(SYS_futex, &bits, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 10, NULL, NULL, 0x30), 1);
}

static long with_mutex(struct waiter *w)
{
	return pthread_mutex_lock(&mutex);
}

static void wake_mutex(struct waiter *w)
{
	PT(pthread_mutex_unlock(&mutex));
}

static long with_pi(struct waiter *w)
{
	return pthread_mutex_lock(&pi);
}

static void wake_pi(struct waiter *w)
{
	PT(pthread_mutex_unlock(&pi));
}

static long with_rwlock(struct waiter *w)
{
	return pthread_rwlock_wrlock(&rw);
}

static void wake_rwlock(struct waiter *w)
{
	PT(pthread_rwlock_unlock(&rw));
}

static long with_barrier(struct waiter *w)
{
	long r = pthread_barrier_wait(&barrier);

	return r == PTHREAD_BARRIER_SERIAL_THREAD ? 0 : r;
}

static void wake_barrier(struct waiter *w)
{
	pthread_barrier_wait(&barrier);
}

static long with_waitv(struct waiter *w)
{
	struct waitv v[3];
	int i;

	memset(v, 0, sizeof(v));
	for (i = 0; i < 3; i++) {
		v[i].uaddr = (uintptr_t)&vec_words[i];
		v[i].flags = 2 /* FUTEX2_SIZE_U32 */ | FUTEX_PRIVATE_FLAG;
	}
	return syscall(449 /* futex_waitv */, v, 3, 0, NULL, 0);
}

static void wake_waitv(struct waiter *w)
{
	SAME(syscall(SYS_futex, &vec_words[2], FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0), 1);
}

static struct waiter waiters[] = {
	{ "futex", SYS_futex, with_wait, wake_wait },
	{ "futex with bits", SYS_futex, with_bits, wake_bits },
	{ "pthread_mutex_lock", SYS_futex, with_mutex, wake_mutex },
	{ "pthread_mutex_lock with priority inheritance", SYS_futex, with_pi, wake_pi },
	{ "pthread_rwlock_wrlock", SYS_futex, with_rwlock, wake_rwlock },
	{ "pthread_barrier_wait", SYS_futex, with_barrier, wake_barrier },
	{ "futex_waitv", 449, with_waitv, wake_waitv, .want = 2 },
};
#define N (int)(sizeof(waiters) / sizeof(waiters[0]))

int main(int argc, char **argv)
{
	pthread_mutexattr_t attr;
	pid_t child;

	conf_init(argc, argv);
	PT(pthread_mutexattr_init(&attr));
	PT(pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT));
	PT(pthread_mutex_init(&pi, &attr));
	PT(pthread_mutex_lock(&pi));
	PT(pthread_mutex_lock(&mutex));
	PT(pthread_rwlock_rdlock(&rw));
	PT(pthread_barrier_init(&barrier, NULL, 2));
	shared = conf_shared(4096);
	child = SYS(fork());
	if (child == 0) {
		if (syscall(SYS_futex, shared, FUTEX_WAIT, 0, NULL, NULL, 0) < 0 && !conf_eintr_ok(errno))
			conf_fail("futex shared with the parent: %s", strerror(errno));
		CHECK(conf_gone(), "futex shared with the parent: ended too early");
		_exit(0);
	}
	UNTIL(conf_in_syscall(child, SYS_futex), "the child");
	waiters_start(waiters, N);
	conf_ready();
	conf_wait();
	waiters_finish(waiters, N);
	*shared = 1;
	OK(syscall(SYS_futex, shared, FUTEX_WAKE, 10, NULL, NULL, 0));
	conf_reap_ok(child);
	conf_pass();
}
