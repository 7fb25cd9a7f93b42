// kind: waiting
// state: reading from an empty and writing to a full pipe, opening a FIFO, eventfd, accept, recv, recvmsg, send
// users: root nobody
// mutate: user_x86_regs_entry.di=0
#include "conf_waiters.h"
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static char big[65536 + 4096];

static void make_pipe(struct waiter *w)
{
	SYS(pipe(w->fd));
}

static long read_pipe(struct waiter *w)
{
	char c[4];

	return syscall(SYS_read, w->fd[0], c, 4);
}

static long readv_pipe(struct waiter *w)
{
	char c[2], d[2];
	struct iovec v[2] = { { c, 2 }, { d, 2 } };

	return syscall(SYS_readv, w->fd[0], v, 2);
}

static void feed(struct waiter *w)
{
	OK(write(w->fd[1], "abc", 3));
}

/*
 * The pipe is full. (Of a write that has already put a part into the pipe, or
 * a read that has taken a part, any disturbance makes a short one: that is how
 * the kernel ends them.)
 */
static long write_pipe(struct waiter *w)
{
	return syscall(SYS_write, w->fd[1], big + 65536, 4096);
}

static void drain(struct waiter *w)
{
	static unsigned char buf[65536];
	size_t at = 0;
	ssize_t n, k;

	while (at < sizeof(big)) {
		n = OK(read(w->fd[0], buf, sizeof(buf)));
		for (k = 0; k < n; k++, at++)
			CHECK(buf[k] == (unsigned char)(at * 17 + at / 256), "byte %zu of the pipe is wrong", at);
	}
}

static long open_fifo(struct waiter *w)
{
	return syscall(SYS_openat, AT_FDCWD, conf_path("fifo"), O_RDONLY) >= 0 ? 0 : -1;
}

static void writer_comes(struct waiter *w)
{
	OK(open(conf_path("fifo"), O_WRONLY));
}

static long read_eventfd(struct waiter *w)
{
	uint64_t v = 0;
	long r = syscall(SYS_read, w->fd[0], &v, 8);

	return r == 8 ? (long)v : r;
}

static void add_event(struct waiter *w)
{
	uint64_t v = 99;

	OK(write(w->fd[0], &v, 8));
}

static long do_accept(struct waiter *w)
{
	return syscall(SYS_accept, w->fd[0], NULL, NULL) >= 0 ? 0 : -1;
}

static void do_connect(struct waiter *w)
{
	struct sockaddr_un a = { AF_UNIX };
	int s = OK(socket(AF_UNIX, SOCK_STREAM, 0));

	strcpy(a.sun_path, "listener");
	OK(connect(s, (void *)&a, sizeof(a)));
}

static long do_recv(struct waiter *w)
{
	char c[8];

	return syscall(SYS_recvfrom, w->fd[0], c, 8, 0, NULL, NULL);
}

static long do_recvmsg(struct waiter *w)
{
	char c[8];
	struct iovec v = { c, 8 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

	return syscall(SYS_recvmsg, w->fd[0], &m, MSG_WAITALL) == 8 && !memcmp(c, "01234567", 8) ? 8 : -1;
}

static void feed_all(struct waiter *w)
{
	OK(write(w->fd[1], "0123", 4));
	conf_sleep_ms(5);
	OK(write(w->fd[1], "4567", 4));
}

static long do_send(struct waiter *w)
{
	long n = 0, r;

	do {
		r = syscall(SYS_sendto, w->fd[0], big, 1000, 0, NULL, 0);
		n++;
	} while (r == 1000 && n < 100000 && !conf_gone());
	return r;
}

static void make_room(struct waiter *w)
{
	char c[1000];

	SAME(read(w->fd[1], c, 1000), 1000);
	/* One datagram less may not be room enough. */
	while (!w->done && recv(w->fd[1], c, 1000, MSG_DONTWAIT) > 0)
		conf_sleep_ms(1);
}

static struct waiter waiters[] = {
	{ "read from a pipe", SYS_read, read_pipe, feed, 3 },
	{ "readv from a pipe", SYS_readv, readv_pipe, feed, 3 },
	{ "write to a pipe", SYS_write, write_pipe, drain, 4096 },
	{ "open of a FIFO", SYS_openat, open_fifo, writer_comes },
	{ "read from an eventfd", SYS_read, read_eventfd, add_event, 99 },
	{ "accept", SYS_accept, do_accept, do_connect },
	{ "recv", SYS_recvfrom, do_recv, feed, 3 },
	{ "recvmsg with MSG_WAITALL", SYS_recvmsg, do_recvmsg, feed_all, 8 },
	{ "send", SYS_sendto, do_send, make_room, 1000 },
};
#define N (int)(sizeof(waiters) / sizeof(waiters[0]))

int main(int argc, char **argv)
{
	struct sockaddr_un a = { AF_UNIX };
	int i;

	conf_init(argc, argv);
	for (i = 0; i < 3; i++)
		make_pipe(&waiters[i]);
	for (i = 0; i < (int)sizeof(big); i++)
		big[i] = i * 17 + i / 256;
	SAME(SYS(write(waiters[2].fd[1], big, 65536)), 65536);
	SYS(mkfifo(conf_path("fifo"), 0600));
	waiters[4].fd[0] = SYS(eventfd(0, 0));
	waiters[5].fd[0] = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	strcpy(a.sun_path, "listener");
	SYS(bind(waiters[5].fd[0], (void *)&a, sizeof(a)));
	SYS(listen(waiters[5].fd[0], 5));
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, waiters[6].fd));
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, waiters[7].fd));
	SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, waiters[8].fd));
	waiters_start(waiters, N);
	conf_ready();
	conf_wait();
	waiters_finish(waiters, N);
	conf_pass();
}
