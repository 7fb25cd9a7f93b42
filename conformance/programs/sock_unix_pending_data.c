// kind: unix sockets
// state: connections not yet accepted whose clients have sent something: a stream, messages, one shut down behind it, one that has sent nothing
// users: root nobody
// mutate: fermata.sock_extra.arrived fermata.sock_extra.pending
// unprivileged: the kernel's memory cannot be read here
#include "sockaddr.h"

#define MANY 70000

int main(int argc, char **argv)
{
	int l, q, c[3], p, got, i;
	char b[64];

	conf_init(argc, argv);
	l = un_listener(SOCK_STREAM, "listener", 10);
	q = un_listener(SOCK_SEQPACKET, "@conformance-packets", 10);
	for (i = 0; i < 3; i++)
		c[i] = un_connected(SOCK_STREAM, "listener");
	mf_write_stream(c[0], 50, 1, 0, "set-up");
	mf_write_stream(c[0], MANY - 50, 1, 50, "set-up");
	mf_write_stream(c[2], 9, 3, 0, "set-up");
	SYS(shutdown(c[2], SHUT_WR));
	p = un_connected(SOCK_SEQPACKET, "@conformance-packets");
	SYS(send(p, "one", 3, 0));
	SYS(send(p, "", 0, 0));
	SYS(send(p, "two!", 4, 0));
	conf_ready();
	conf_wait();
	got = OK(accept(l, NULL, NULL));
	mf_expect_stream(got, MANY, 1, 0, "connection");
	mf_write_stream(got, 50, 2, 0, "connection");
	mf_expect_stream(c[0], 50, 2, 0, "connection, back");
	mf_write_stream(c[0], 50, 4, 0, "connection");
	mf_expect_stream(got, 50, 4, 0, "connection, on");

	got = OK(accept4(l, NULL, NULL, SOCK_NONBLOCK));
	CHECK(read(got, b, 1) < 0 && errno == EAGAIN, "something came that was not sent");
	mf_write_stream(c[1], 5, 5, 0, "the second");
	mf_expect_stream(got, 5, 5, 0, "the second");

	got = OK(accept(l, NULL, NULL));
	mf_expect_stream(got, 9, 3, 0, "the third");
	mf_eof(got, "the third");

	got = OK(accept(q, NULL, NULL));
	SAME(recv(got, b, sizeof(b), 0), 3);
	CHECK(!memcmp(b, "one", 3), "the first message is different");
	SAME(recv(got, b, sizeof(b), 0), 0);
	SAME(recv(got, b, sizeof(b), 0), 4);
	CHECK(!memcmp(b, "two!", 4), "the third message is different");
	conf_pass();
}
