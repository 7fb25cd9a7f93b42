// kind: tcp
// state: connections not yet accepted whose clients have sent something: a little, more than the server has room for, shut down behind it, closed, reset
// users: root nobody
// mutate: fermata.sock_extra.arrived fermata.sock_extra.pending
// unprivileged: the kernel's memory cannot be read here
#include "sockaddr.h"

static int client(int l)
{
	return in_connected(AF_INET, SOCK_STREAM, in_port(l, false));
}

int main(int argc, char **argv)
{
	struct linger hard = { 1, 0 };
	int l, a, a6, c, full, half, gone, broken, quiet, l6, c6;
	int port, port6, i;
	size_t sent = 0;
	char b[1];

	conf_init(argc, argv);
	l = in_listener(AF_INET, 10);
	c = client(l);
	mf_write_stream(c, 3000, 1, 0, "set-up");
	full = client(l);
	mf_set_nonblock(full, true);
	for (i = 0; i < 20; i++) {
		sent += mf_flood(full, 6, sent);
		conf_sleep_ms(2);
	}
	mf_set_nonblock(full, false);
	half = client(l);
	mf_write_stream(half, 10, 3, 0, "set-up");
	SYS(shutdown(half, SHUT_WR));
	gone = client(l);
	port = in_port(gone, false);
	mf_write_stream(gone, 20000, 4, 0, "set-up");
	close(gone);
	broken = client(l);
	SYS(setsockopt(broken, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)));
	close(broken);
	quiet = client(l);
	l6 = in_listener(AF_INET6, 10);
	c6 = in_connected(AF_INET6, SOCK_STREAM, in_port(l6, false));
	port6 = in_port(c6, false);
	mf_write_stream(c6, 40, 5, 0, "set-up");
	close(c6);
	conf_sleep_ms(50);
	conf_ready();
	conf_wait();
	a = OK(accept(l, NULL, NULL));
	mf_expect_stream(a, 3000, 1, 0, "connection");
	mf_write_stream(a, 100, 2, 0, "connection");
	mf_expect_stream(c, 100, 2, 0, "connection, back");
	close(a);

	a = OK(accept(l, NULL, NULL));
	mf_expect_stream(a, sent, 6, 0, "the full connection");
	mf_write_stream(full, 10, 7, 0, "the full connection, on");
	mf_expect_stream(a, 10, 7, 0, "the full connection, on");
	close(a);

	a = OK(accept(l, NULL, NULL));
	mf_expect_stream(a, 10, 3, 0, "half a connection");
	mf_eof(a, "half a connection");
	mf_write_stream(a, 10, 8, 0, "half a connection");
	mf_expect_stream(half, 10, 8, 0, "half a connection, back");

	a = OK(accept(l, NULL, NULL));
	SAME(in_port(a, true), port);
	mf_expect_stream(a, 20000, 4, 0, "connection of who left");
	mf_eof(a, "connection of who left");

	a = OK(accept(l, NULL, NULL));
	CHECK(read(a, b, 1) < 0 && errno == ECONNRESET, "a broken connection gives no error");

	a = OK(accept(l, NULL, NULL));
	mf_write_stream(quiet, 10, 9, 0, "the last one");
	mf_expect_stream(a, 10, 9, 0, "the last one");

	a6 = OK(accept(l6, NULL, NULL));
	SAME(in_port(a6, true), port6);
	mf_expect_stream(a6, 40, 5, 0, "connection of who left, IPv6");
	mf_eof(a6, "connection of who left, IPv6");
	conf_pass();
}
