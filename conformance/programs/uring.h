/*
 * io_uring by its system calls, for the programs about it: as a library does it,
 * the program keeps a count of what it has submitted.
 */
#ifndef URING_H
#define URING_H

#include "conformance.h"
#include <linux/io_uring.h>
#include <sys/uio.h>

#define UR_SINGLE_ISSUER (1U << 12)
#define UR_DEFER_TASKRUN (1U << 13)
#define UR_NO_MMAP (1U << 14)
#define UR_NO_SQARRAY (1U << 16)

struct uring {
	int fd;
	unsigned flags, tail, sqe, cqe;
	struct io_uring_params p;
	char *rings, *entries;
	size_t size;
};

static CONF_UNUSED unsigned *ur_word(struct uring *u, unsigned off)
{
	return (unsigned *)(u->rings + off);
}

/* ur_setup makes an instance; -1 with errno when the kernel has no such. */
static CONF_UNUSED int ur_setup(struct uring *u, unsigned n, unsigned flags, unsigned idle)
{
	memset(u, 0, sizeof(*u));
	u->p.flags = flags;
	u->p.sq_thread_idle = idle;
	u->fd = syscall(SYS_io_uring_setup, n, &u->p);
	if (u->fd < 0)
		return -1;
	u->flags = flags;
	u->sqe = flags & IORING_SETUP_SQE128 ? 128 : 64;
	u->cqe = flags & IORING_SETUP_CQE32 ? 32 : 16;
	u->size = u->p.cq_off.cqes + u->p.cq_entries * u->cqe;
	if (!(flags & UR_NO_SQARRAY) && u->p.sq_off.array + u->p.sq_entries * 4 > u->size)
		u->size = u->p.sq_off.array + u->p.sq_entries * 4;
	u->rings = SYS(mmap(NULL, u->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQ_RING));
	u->entries = SYS(mmap(NULL, u->p.sq_entries * u->sqe, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQES));
	return 0;
}

/* ur_put writes an entry, whose fields the caller then sets. */
static CONF_UNUSED struct io_uring_sqe *ur_put(struct uring *u, int op, uint64_t data)
{
	unsigned i = u->tail & (u->p.sq_entries - 1);
	struct io_uring_sqe *s = (void *)(u->entries + i * u->sqe);

	CHECK(u->tail - __atomic_load_n(ur_word(u, u->p.sq_off.head), __ATOMIC_ACQUIRE) < u->p.sq_entries, "no room for an entry: %u, the kernel is at %u", u->tail, *ur_word(u, u->p.sq_off.head));
	memset(s, 0, u->sqe);
	s->opcode = op;
	s->user_data = data;
	if (!(u->flags & UR_NO_SQARRAY))
		ur_word(u, u->p.sq_off.array)[i] = i;
	u->tail++;
	return s;
}

static CONF_UNUSED struct io_uring_sqe *ur_rw(struct uring *u, int op, uint64_t data, int fd, void *buf, unsigned n, uint64_t off)
{
	struct io_uring_sqe *s = ur_put(u, op, data);

	s->fd = fd;
	s->addr = (uintptr_t)buf;
	s->len = n;
	s->off = off;
	return s;
}

/* ur_show lets the kernel see what was put. */
static CONF_UNUSED void ur_show(struct uring *u)
{
	__atomic_store_n(ur_word(u, u->p.sq_off.tail), u->tail, __ATOMIC_RELEASE);
}

static CONF_UNUSED int ur_enter(int fd, unsigned submit, unsigned complete, unsigned flags)
{
	return syscall(SYS_io_uring_enter, fd, submit, complete, flags, NULL, 0);
}

/* ur_submit submits all that was put, and waits for as many completions. */
static CONF_UNUSED void ur_submit(struct uring *u, unsigned complete)
{
	unsigned n = u->tail - __atomic_load_n(ur_word(u, u->p.sq_off.head), __ATOMIC_ACQUIRE), flags = complete ? IORING_ENTER_GETEVENTS : 0;

	ur_show(u);
	if (u->flags & IORING_SETUP_SQPOLL) {
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (*ur_word(u, u->p.sq_off.flags) & IORING_SQ_NEED_WAKEUP)
			flags |= IORING_ENTER_SQ_WAKEUP;
		OK(ur_enter(u->fd, n, complete, flags));
		return;
	}
	SAME(OK(ur_enter(u->fd, n, complete, flags)), n);
}

/* ur_ready is how many completions wait. */
static CONF_UNUSED unsigned ur_ready(struct uring *u)
{
	return __atomic_load_n(ur_word(u, u->p.cq_off.tail), __ATOMIC_ACQUIRE) - *ur_word(u, u->p.cq_off.head);
}

struct completion {
	uint64_t user_data;
	int res;
	unsigned flags;
};

/* ur_take takes a completion that is there. */
static CONF_UNUSED struct completion ur_take(struct uring *u)
{
	unsigned head = *ur_word(u, u->p.cq_off.head);
	struct completion c;

	UNTIL(ur_ready(u) > 0, "a completion");
	memcpy(&c, u->rings + u->p.cq_off.cqes + (head & (u->p.cq_entries - 1)) * u->cqe, sizeof(c));
	__atomic_store_n(ur_word(u, u->p.cq_off.head), head + 1, __ATOMIC_RELEASE);
	return c;
}

static CONF_UNUSED void ur_expect(struct uring *u, uint64_t data, int res)
{
	struct completion c = ur_take(u);

	CHECK(c.user_data == data && c.res == res, "completion %llu with %d, not %llu with %d", (unsigned long long)c.user_data, c.res, (unsigned long long)data, res);
}

/* ur_rounds carries out n requests that do nothing. */
static CONF_UNUSED void ur_rounds(struct uring *u, int n)
{
	for (int i = 0; i < n; i++) {
		ur_put(u, IORING_OP_NOP, i);
		ur_submit(u, 1);
		ur_expect(u, i, 0);
	}
}

static CONF_UNUSED int ur_register(struct uring *u, unsigned what, const void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, u->fd, what, arg, n);
}

/* ur_need skips the program where there is no io_uring. */
static CONF_UNUSED void ur_need(struct uring *u, unsigned n, unsigned flags, unsigned idle)
{
	if (ur_setup(u, n, flags, idle) == 0)
		return;
	if (errno == ENOSYS || errno == EPERM)
		conf_skip("io_uring: %s", strerror(errno));
	conf_fail("set-up: io_uring_setup with %#x: %s", flags, strerror(errno));
}

#endif
