// kind: unix sockets
// state: options: buffer sizes, passing of credentials, time limits, low-water mark, peek offset, priority
// users: root nobody
// mutate: sk_opts_entry
// nocriu: forgets SO_PEEK_OFF
#include "sockaddr.h"

#ifndef SO_PEEK_OFF
#define SO_PEEK_OFF 42
#endif

int main(int argc, char **argv)
{
	static const int opts[] = { SO_SNDBUF,   SO_RCVBUF,   SO_PASSCRED, SO_RCVLOWAT, SO_PEEK_OFF,
				    SO_PRIORITY, SO_PASSSEC,  SO_BROADCAST, SO_REUSEADDR, SO_KEEPALIVE,
				    SO_TIMESTAMP, SO_TIMESTAMPNS, SO_NO_CHECK, SO_DONTROUTE, SO_OOBINLINE };
	struct timeval tv, rcv = { 3, 250000 }, snd = { 100, 750000 };
	struct linger lin = { 1, 17 }, now;
	int sk[2], dg[2], was[2][15];
	socklen_t n;
	char buf[16];

	conf_init(argc, argv);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sk));
	SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, dg));
	opt_set(sk[0], SOL_SOCKET, SO_SNDBUF, 300000 / 4);
	opt_set(sk[0], SOL_SOCKET, SO_RCVBUF, 5000);
	opt_set(sk[0], SOL_SOCKET, SO_PASSCRED, 1);
	opt_set(sk[1], SOL_SOCKET, SO_RCVLOWAT, 1);
	opt_set(sk[1], SOL_SOCKET, SO_PEEK_OFF, 2);
	opt_set(sk[0], SOL_SOCKET, SO_PRIORITY, 5);
	opt_set(dg[0], SOL_SOCKET, SO_SNDBUF, 20000);
	opt_set(dg[1], SOL_SOCKET, SO_TIMESTAMPNS, 1);
	opt_set(sk[0], SOL_SOCKET, SO_KEEPALIVE, 1);
	SYS(setsockopt(sk[1], SOL_SOCKET, SO_RCVTIMEO, &rcv, sizeof(rcv)));
	SYS(setsockopt(sk[1], SOL_SOCKET, SO_SNDTIMEO, &snd, sizeof(snd)));
	SYS(setsockopt(dg[0], SOL_SOCKET, SO_LINGER, &lin, sizeof(lin)));
	/* The kernel rounds them to its ticks. */
	n = sizeof(rcv);
	SYS(getsockopt(sk[1], SOL_SOCKET, SO_RCVTIMEO, &rcv, &n));
	n = sizeof(snd);
	SYS(getsockopt(sk[1], SOL_SOCKET, SO_SNDTIMEO, &snd, &n));
	for (int i = 0; i < 15; i++) {
		was[0][i] = opt_int(sk[i == 3 || i == 4], SOL_SOCKET, opts[i]);
		was[1][i] = opt_int(dg[i >= 10 && i <= 11], SOL_SOCKET, opts[i]);
	}
	mf_write_all(sk[0], "abcdef", 6, "set-up");
	conf_ready();
	conf_wait();
	for (int i = 0; i < 15; i++) {
		int a = opt_int(sk[i == 3 || i == 4], SOL_SOCKET, opts[i]), b = opt_int(dg[i >= 10 && i <= 11], SOL_SOCKET, opts[i]);

		CHECK(a == was[0][i], "option %d of the stream socket is %d, was %d", opts[i], a, was[0][i]);
		CHECK(b == was[1][i], "option %d of the datagram socket is %d, was %d", opts[i], b, was[1][i]);
	}
	n = sizeof(tv);
	OK(getsockopt(sk[1], SOL_SOCKET, SO_RCVTIMEO, &tv, &n));
	SAME(tv.tv_sec, 3);
	SAME(tv.tv_usec, rcv.tv_usec);
	n = sizeof(tv);
	OK(getsockopt(sk[1], SOL_SOCKET, SO_SNDTIMEO, &tv, &n));
	SAME(tv.tv_sec, 100);
	SAME(tv.tv_usec, snd.tv_usec);
	n = sizeof(now);
	OK(getsockopt(dg[0], SOL_SOCKET, SO_LINGER, &now, &n));
	SAME(now.l_onoff, 1);
	SAME(now.l_linger, 17);
	SAME(recv(sk[1], buf, 2, MSG_PEEK), 2);	/* from the peek offset */
	CHECK(!memcmp(buf, "cd", 2), "peeking gives %.2s", buf);
	SAME(opt_int(sk[1], SOL_SOCKET, SO_PEEK_OFF), 4);
	conf_pass();
}
