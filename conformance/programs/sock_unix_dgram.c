// kind: unix sockets
// state: datagram and seqpacket pairs: boundaries of what is queued, also of empty datagrams
// users: root nobody
// mutate: sk_packet_entry sk_packet_entry.length
// short: yes
// nocriu: loses empty datagrams
#include "memfile.h"

static const int size[] = { 1, 0, 5000, 17, 0, 100, 65536 };
#define N 7

static void fill(int fd, uint64_t seed)
{
	static char buf[65536];

	for (int i = 0; i < N; i++) {
		mf_fill(buf, size[i], seed + i);
		CHECK(send(fd, buf, size[i], 0) == size[i], "set-up: send %d: %s", size[i], strerror(errno));
	}
}

static void drain(int fd, uint64_t seed, const char *what)
{
	static char buf[70000];

	for (int i = 0; i < N; i++) {
		CHECK(recv(fd, buf, sizeof(buf), MSG_DONTWAIT) == size[i], "%s: message %d is not of %d bytes", what, i, size[i]);
		mf_check(buf, size[i], seed + i, what);
	}
	mf_empty(fd, what);
}

int main(int argc, char **argv)
{
	int d[2], s[2];
	char buf[10];

	conf_init(argc, argv);
	SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, d));
	SYS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s));
	fill(d[0], 100);
	fill(d[1], 200);
	fill(s[0], 300);
	fill(s[1], 400);
	conf_ready();
	conf_wait();
	SAME(fcntl(s[1], F_GETFD), FD_CLOEXEC);
	drain(d[1], 100, "datagrams forth");
	drain(d[0], 200, "datagrams back");
	drain(s[1], 300, "packets forth");
	drain(s[0], 400, "packets back");
	SAME(send(d[0], "abc", 3, 0), 3);
	SAME(send(d[0], "defg", 4, 0), 4);
	SAME(recv(d[1], buf, 2, 0), 2);		/* the rest is thrown away */
	SAME(recv(d[1], buf, 10, 0), 4);
	SAME(send(s[0], "abc", 3, 0), 3);
	close(s[0]);
	SAME(recv(s[1], buf, 10, 0), 3);
	SAME(recv(s[1], buf, 10, 0), 0);
	conf_pass();
}
