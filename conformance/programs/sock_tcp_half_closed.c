// kind: tcp
// state: half-closed connections: shut down by one side, with data in either direction; by both with data left; closed by the peer
// users: root nobody
// mutate: part:tcp-stream
#include "sockaddr.h"

int main(int argc, char **argv)
{
	int half[2], both[2], closed[2];

	conf_init(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	in_pair(AF_INET, half);
	mf_write_stream(half[0], 5000, 1, 0, "set-up");
	SYS(shutdown(half[0], SHUT_WR));
	mf_write_stream(half[1], 6000, 2, 0, "set-up");
	in_pair(AF_INET6, both);
	mf_write_stream(both[0], 5000, 3, 0, "set-up");
	mf_write_stream(both[1], 5000, 4, 0, "set-up");
	SYS(shutdown(both[0], SHUT_WR));
	SYS(shutdown(both[1], SHUT_WR));
	in_pair(AF_INET, closed);
	mf_write_stream(closed[0], 5000, 5, 0, "set-up");
	close(closed[0]);
	conf_sleep_ms(5);
	conf_ready();
	conf_wait();
	mf_expect_stream(half[1], 5000, 1, 0, "half closed");
	mf_eof(half[1], "half closed");
	CHECK(write(half[0], "x", 1) < 0 && errno == EPIPE, "the closed half can be written");
	mf_write_stream(half[1], 100000, 2, 6000, "the open half");
	close(half[1]);
	mf_expect_stream(half[0], 106000, 2, 0, "the open half");
	mf_eof(half[0], "the open half");
	mf_expect_stream(both[1], 5000, 3, 0, "closed by both");
	mf_eof(both[1], "closed by both");
	mf_expect_stream(both[0], 5000, 4, 0, "closed by both");
	mf_eof(both[0], "closed by both");
	CHECK(write(both[0], "x", 1) < 0 && errno == EPIPE, "closed by both: can be written");
	mf_expect_stream(closed[1], 5000, 5, 0, "closed by the peer");
	mf_eof(closed[1], "closed by the peer");
	conf_pass();
}
