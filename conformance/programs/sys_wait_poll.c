// kind: waiting
// state: poll, ppoll, select, pselect and epoll_wait without a limit, woken by their descriptor afterwards
// users: root nobody
// mutate: user_x86_regs_entry.di=0
// nocriu: epoll_wait ends with EINTR
#include "conf_waiters.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

static long with_poll(struct waiter *w)
{
	struct pollfd p = { w->fd[0], POLLIN };
	long r = syscall(SYS_poll, &p, 1, -1);

	return r == 1 && p.revents != POLLIN ? -2 : r;
}

static long with_ppoll(struct waiter *w)
{
	struct pollfd p = { w->fd[0], POLLIN };
	long r = syscall(SYS_ppoll, &p, 1, NULL, NULL, 8);

	return r == 1 && p.revents != POLLIN ? -2 : r;
}

static long with_select(struct waiter *w)
{
	fd_set s;

	FD_ZERO(&s);
	FD_SET(w->fd[0], &s);
	return syscall(SYS_select, w->fd[0] + 1, &s, NULL, NULL, NULL);
}

static long with_pselect(struct waiter *w)
{
	fd_set s;

	FD_ZERO(&s);
	FD_SET(w->fd[0], &s);
	return syscall(SYS_pselect6, w->fd[0] + 1, &s, NULL, NULL, NULL, NULL);
}

static long with_epoll(struct waiter *w)
{
	struct epoll_event ev = { EPOLLIN, { .u64 = 0x1122334455667788 } };
	int fd = epoll_create1(0);
	long r;

	if (fd < 0 || epoll_ctl(fd, EPOLL_CTL_ADD, w->fd[0], &ev) < 0)
		return -2;
	ev.data.u64 = 0;
	r = syscall(SYS_epoll_wait, fd, &ev, 1, -1);
	return r == 1 && ev.data.u64 != 0x1122334455667788 ? -3 : r;
}

static void send_byte(struct waiter *w)
{
	OK(write(w->fd[1], "x", 1));
}

static struct waiter waiters[] = {
	{ "poll", SYS_poll, with_poll, send_byte, 1 },
	{ "ppoll", SYS_ppoll, with_ppoll, send_byte, 1 },
	{ "select", SYS_select, with_select, send_byte, 1 },
	{ "pselect", SYS_pselect6, with_pselect, send_byte, 1 },
	{ "epoll_wait", SYS_epoll_wait, with_epoll, send_byte, 1 },
};
#define N (int)(sizeof(waiters) / sizeof(waiters[0]))

int main(int argc, char **argv)
{
	int i;

	conf_init(argc, argv);
	for (i = 0; i < N; i++)
		SYS(pipe(waiters[i].fd));
	waiters_start(waiters, N);
	conf_ready();
	conf_wait();
	waiters_finish(waiters, N);
	conf_pass();
}
