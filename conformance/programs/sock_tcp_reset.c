// kind: tcp
// state: connections that the peer has reset: an error not yet reported, and one that was
// users: root nobody
// mutate: fermata.sock_extra.error
// nocriu: forgets the error
#include "sockaddr.h"

static void make(int sk[2])
{
	struct linger lin = { 1, 0 };

	in_pair(AF_INET, sk);
	SYS(setsockopt(sk[0], SOL_SOCKET, SO_LINGER, &lin, sizeof(lin)));
	close(sk[0]);
	UNTIL(mf_poll(sk[1], POLLIN) & POLLERR, "the reset");
}

int main(int argc, char **argv)
{
	int fresh[2], told[2];
	char c;

	conf_init(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	make(fresh);
	make(told);
	SAME(read(told[1], &c, 1), -1);
	SAME(errno, ECONNRESET);
	conf_ready();
	conf_wait();
	SAME(mf_poll(fresh[1], POLLIN) & (POLLERR | POLLHUP), POLLERR | POLLHUP);
	CHECK(read(fresh[1], &c, 1) < 0 && errno == ECONNRESET, "the reset connection: %s", strerror(errno));
	CHECK(write(fresh[1], "x", 1) < 0 && errno == EPIPE, "the reset connection, written: %s", strerror(errno));
	mf_eof(told[1], "the connection whose reset was reported");
	CHECK(write(told[1], "x", 1) < 0 && errno == EPIPE, "the same, written: %s", strerror(errno));
	conf_pass();
}
