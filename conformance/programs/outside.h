/*
 * TCP connections whose other end is held by a process outside the tree, for the
 * programs about them. out_fork() forks that process, which the harness is told
 * of; from then on it is nobody's child here.
 */
#ifndef OUTSIDE_H
#define OUTSIDE_H

#include "sockaddr.h"
#include <poll.h>

#define OUT_ROOM 4096 /* what the sockets' buffers are asked to hold */

/* out_pair is in_pair with little room on the way from [0] to [1]. */
static CONF_UNUSED void out_pair(int family, int sk[2])
{
	int l = in_listener(family, 1), room = OUT_ROOM;

	SYS(setsockopt(l, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)));
	sk[0] = in_connected(family, SOCK_STREAM, in_port(l, false));
	sk[1] = SYS(accept(l, NULL, NULL));
	SYS(setsockopt(sk[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)));
	close(l);
}

/*
 * out_fill writes bytes of the stream seed until there is no more room, neither
 * here nor there, and gives how many.
 */
static CONF_UNUSED size_t out_fill(int fd, uint64_t seed)
{
	size_t n = 0;

	for (int idle = 0; idle < 20;) {
		char b[64];
		ssize_t r;

		mf_fill_at(b, sizeof(b), seed, n);
		r = send(fd, b, sizeof(b), MSG_DONTWAIT | MSG_NOSIGNAL);
		if (r > 0) {
			n += r;
			idle = 0;
			continue;
		}
		if (errno != EAGAIN)
			conf_fail("set-up: filling a connection: %s", strerror(errno));
		idle++;
		conf_sleep_ms(2);
	}
	return n;
}

/* out_state fails unless a connection is in a state (TCP_ESTABLISHED ...). */
static CONF_UNUSED void out_state(int fd, int state, const char *what)
{
	struct tcp_info i;
	socklen_t n = sizeof(i);

	CHECK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &n) == 0, "TCP_INFO: %s", strerror(errno));
	CHECK(i.tcpi_state == state, "%s: the state is %d, not %d", what, i.tcpi_state, state);
}

/*
 * out_fork gives 0 to the process outside, which is in a session of its own.
 * Whoever it was forked by sees its pid written down before it returns.
 */
static CONF_UNUSED pid_t out_fork(void)
{
	pid_t pid = SYS(fork());
	char text[16];
	int fd;

	if (pid > 0) {
		int st;

		SYS(waitpid(pid, &st, 0));
		CHECK(st == 0, "set-up: the process in between ended with %#x", st);
		return pid;
	}
	SYS(setsid());
	pid = SYS(fork());
	if (pid == 0) {
		int null = SYS(open("/dev/null", O_RDWR));

		for (int i = 0; i < 3; i++)
			SYS(dup2(null, i));
		close(null);
		return 0;
	}
	fd = SYS(open(conf_path("outside"), O_WRONLY | O_CREAT | O_TRUNC, 0666));
	snprintf(text, sizeof(text), "%d\n", (int)pid);
	mf_write_all(fd, text, strlen(text), "set-up");
	_exit(0);
}

#endif
