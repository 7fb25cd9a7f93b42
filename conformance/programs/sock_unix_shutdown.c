// kind: unix sockets
// state: pairs shut down for reading, for writing, for both, and closed by the peer, with data left
// users: root nobody
// mutate: unix_sk_entry.shutdown
#include "sockaddr.h"

int main(int argc, char **argv)
{
	int rd[2], wr[2], both[2], closed[2], never;

	conf_init(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, rd));
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, wr));
	SYS(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, both));
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, closed));
	mf_write_stream(rd[1], 100, 1, 0, "set-up");
	SYS(shutdown(rd[0], SHUT_RD));
	mf_write_stream(wr[0], 100, 2, 0, "set-up");
	SYS(shutdown(wr[0], SHUT_WR));
	mf_write_stream(both[0], 100, 3, 0, "set-up");
	SYS(shutdown(both[0], SHUT_RDWR));
	mf_write_stream(closed[0], 100, 4, 0, "set-up");
	close(closed[0]);
	never = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	conf_ready();
	conf_wait();
	/* For reading: what was queued is there, then the end; the peer gets EPIPE. */
	mf_expect_stream(rd[0], 100, 1, 0, "shut down for reading");
	mf_eof(rd[0], "shut down for reading");
	CHECK(write(rd[1], "x", 1) < 0 && errno == EPIPE, "the peer of a socket shut down for reading can write");
	mf_write_stream(rd[0], 10, 5, 0, "shut down for reading");
	mf_expect_stream(rd[1], 10, 5, 0, "its peer");
	CHECK(write(wr[0], "x", 1) < 0 && errno == EPIPE, "a socket shut down for writing can write");
	SAME(mf_poll(wr[1], POLLIN | POLLRDHUP | POLLOUT), POLLIN | POLLRDHUP | POLLOUT);
	mf_expect_stream(wr[1], 100, 2, 0, "peer of shut down for writing");
	mf_eof(wr[1], "peer of shut down for writing");
	mf_write_stream(wr[1], 10, 6, 0, "peer of shut down for writing");
	mf_expect_stream(wr[0], 10, 6, 0, "shut down for writing");
	mf_expect_stream(both[1], 100, 3, 0, "peer of shut down for both");
	mf_eof(both[1], "peer of shut down for both");
	CHECK(write(both[0], "x", 1) < 0 && errno == EPIPE, "shut down for both: can write");
	SAME(mf_poll(both[0], POLLIN) & POLLHUP, POLLHUP);
	mf_expect_stream(closed[1], 100, 4, 0, "closed by the peer");
	mf_eof(closed[1], "closed by the peer");
	CHECK(write(closed[1], "x", 1) < 0 && errno == EPIPE, "closed by the peer: can write");
	SAME(mf_poll(closed[1], POLLIN) & POLLHUP, POLLHUP);
	CHECK(write(never, "x", 1) < 0 && errno == ENOTCONN, "a socket that was never connected: %s", strerror(errno));
	conf_pass();
}
