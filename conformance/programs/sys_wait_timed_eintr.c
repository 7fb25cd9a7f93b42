// kind: waiting
// state: timed calls that the kernel ends with plain EINTR when they are disturbed: they are issued again
// users: root nobody
// mutate: user_x86_regs_entry.ip
// nocriu: they end with EINTR
#include "conf_waiters.h"
#include <sys/epoll.h>
#include <sys/socket.h>

/*
 * The kernel doesn't say how much of the time remained, so they may take up to
 * twice as long, but they must time out and not fail.
 */
#define MS 1500

static long with_epoll(struct waiter *w)
{
	struct epoll_event ev;
	int fd = epoll_create1(0);

	return syscall(SYS_epoll_wait, fd, &ev, 1, MS);
}

static long with_epoll_pwait2(struct waiter *w)
{
	struct timespec t = { MS / 1000, MS % 1000 * 1000000 };
	struct epoll_event ev;
	int fd = epoll_create1(0);

	return syscall(SYS_epoll_pwait2, fd, &ev, 1, &t, NULL, 8);
}

static long with_sigtimedwait(struct waiter *w)
{
	struct timespec t = { MS / 1000, MS % 1000 * 1000000 };
	/* Not blocked, so that the mask is the same after the call. Nobody sends it. */
	uint64_t set = 1UL << (SIGUSR2 - 1);

	return syscall(SYS_rt_sigtimedwait, &set, NULL, &t, 8);
}

static long with_recv(struct waiter *w)
{
	struct timeval t = { MS / 1000, MS % 1000 * 1000 };
	int s[2];
	char c;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s) < 0 || setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) < 0)
		return -2;
	return syscall(SYS_recvfrom, s[0], &c, 1, 0, NULL, NULL);
}

static struct waiter waiters[] = {
	{ "epoll_wait", SYS_epoll_wait, with_epoll, .want = 0 },
	{ "epoll_pwait2", SYS_epoll_pwait2, with_epoll_pwait2, .want = 0 },
	{ "sigtimedwait", SYS_rt_sigtimedwait, with_sigtimedwait, .want = -1, .want_errno = EAGAIN },
	{ "recv with SO_RCVTIMEO", SYS_recvfrom, with_recv, .want = -1, .want_errno = EAGAIN },
};
#define N (int)(sizeof(waiters) / sizeof(waiters[0]))

int main(int argc, char **argv)
{
	long ms;
	int i;

	conf_init(argc, argv);
	waiters_start(waiters, N);
	conf_ready();
	waiters_watch(NULL, 0);
	waiters_watch(waiters, N);
	for (i = 0; i < N; i++) {
		if (!waiter_joined(&waiters[i]))
			continue;
		ms = (waiters[i].ended - waiters[i].began) / 1000000;
		if (ms < MS - 10)
			waiters_complain("%s waited for %ld ms only", waiters[i].name, ms);
		/* Two checkpoints in mode twice. */
		if (ms > 3 * MS + 1000 + 3 * waiters_stall)
			waiters_complain("%s waited for %ld ms (the machine stood still for %ld)", waiters[i].name, ms, waiters_stall);
	}
	if (waiters_wrong[0])
		conf_fail("%s", waiters_wrong);
	conf_pass();
}
