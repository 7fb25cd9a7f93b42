// kind: tcp
// state: MPTCP: a listener, a client of either kind, connections with unread data, half closed, closed by the peer; one not yet accepted
// users: root nobody
// mutate: tcp_stream_entry part:tcp-stream inet_sk_entry.proto=6
// unprivileged: the kernel's memory cannot be read here
#include "sockaddr.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static int proto_of(int fd)
{
	return opt_int(fd, SOL_SOCKET, SO_PROTOCOL);
}

static int client(int proto, int port)
{
	struct sockaddr_storage s;
	socklen_t n = in_loop(&s, AF_INET, port);
	int fd = SYS(socket(AF_INET, SOCK_STREAM, proto));

	CHECK(connect(fd, (struct sockaddr *)&s, n) == 0, "set-up: connect to port %d: %s", port, strerror(errno));
	return fd;
}

int main(int argc, char **argv)
{
	struct sockaddr_storage s;
	socklen_t n;
	int l, plain, multi, pa, ma, half, ha, gone, ga, wait, port;

	conf_init(argc, argv);
	l = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
	if (l < 0)
		conf_skip("this kernel has no MPTCP");
	n = in_loop(&s, AF_INET, 0);
	SYS(bind(l, (struct sockaddr *)&s, n));
	SYS(listen(l, 10));
	port = in_port(l, false);
	plain = client(0, port);
	pa = SYS(accept(l, NULL, NULL));
	multi = client(IPPROTO_MPTCP, port);
	ma = SYS(accept(l, NULL, NULL));
	half = client(IPPROTO_MPTCP, port);
	ha = SYS(accept(l, NULL, NULL));
	gone = client(IPPROTO_MPTCP, port);
	ga = SYS(accept(l, NULL, NULL));
	SAME(proto_of(ma), IPPROTO_MPTCP);
	mf_write_stream(plain, 2000, 1, 0, "set-up");
	mf_write_stream(multi, 3000, 2, 0, "set-up");
	mf_write_stream(ma, 4000, 3, 0, "set-up");
	mf_write_stream(half, 100, 4, 0, "set-up");
	SYS(shutdown(half, SHUT_WR));
	mf_write_stream(gone, 100, 5, 0, "set-up");
	close(gone);
	wait = client(IPPROTO_MPTCP, port);
	mf_write_stream(wait, 50, 6, 0, "set-up");
	UNTIL(mf_poll(ha, POLLRDHUP) && mf_poll(ga, POLLRDHUP) && mf_poll(ma, POLLIN) && mf_poll(multi, POLLIN), "the data to arrive");
	conf_sleep_ms(300);
	conf_ready();
	conf_wait();
	SAME(proto_of(l), IPPROTO_MPTCP);
	SAME(proto_of(multi), IPPROTO_MPTCP);
	SAME(proto_of(ma), IPPROTO_MPTCP);
	SAME(in_port(ma, true), in_port(multi, false));
	SAME(in_port(ma, false), port);
	mf_expect_stream(pa, 2000, 1, 0, "plain client");
	mf_write_stream(pa, 20, 11, 0, "plain client, back");
	mf_expect_stream(plain, 20, 11, 0, "plain client, back");
	mf_expect_stream(ma, 3000, 2, 0, "to the server");
	mf_expect_stream(multi, 4000, 3, 0, "to the client");
	mf_write_stream(multi, 20, 12, 0, "on");
	mf_expect_stream(ma, 20, 12, 0, "on");
	mf_expect_stream(ha, 100, 4, 0, "half closed");
	mf_eof(ha, "half closed");
	mf_write_stream(ha, 30, 13, 0, "half closed, back");
	mf_expect_stream(half, 30, 13, 0, "half closed, back");
	mf_expect_stream(ga, 100, 5, 0, "closed");
	mf_eof(ga, "closed");
	ga = OK(accept(l, NULL, NULL));
	mf_expect_stream(ga, 50, 6, 0, "not accepted before");
	mf_write_stream(ga, 30, 14, 0, "not accepted before, back");
	mf_expect_stream(wait, 30, 14, 0, "not accepted before, back");
	ma = client(IPPROTO_MPTCP, port);
	ga = OK(accept(l, NULL, NULL));
	mf_write_stream(ma, 30, 15, 0, "a new client");
	mf_expect_stream(ga, 30, 15, 0, "a new client");
	conf_pass();
}
