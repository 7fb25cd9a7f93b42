// kind: tcp
// state: options of connected, bound and fresh sockets: buffers, keep-alive, linger, time limits, congestion control, type of service
// users: root nobody
// mutate: sk_opts_entry tcp_opts_entry
// nocriu: leaves SO_REUSEPORT set
#include "sockaddr.h"

static const struct {
	int level, name, value;
	const char *what;
} opt[] = {
	{ SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR" },
	{ SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT" },
	{ SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE" },
	{ SOL_SOCKET, SO_SNDBUF, 40000, "SO_SNDBUF" },
	{ SOL_SOCKET, SO_RCVBUF, 70000, "SO_RCVBUF" },
	{ SOL_SOCKET, SO_PRIORITY, 4, "SO_PRIORITY" },
	{ SOL_SOCKET, SO_RCVLOWAT, 17, "SO_RCVLOWAT" },
	{ SOL_SOCKET, SO_OOBINLINE, 1, "SO_OOBINLINE" },
	{ IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY" },
	{ IPPROTO_TCP, TCP_KEEPIDLE, 77, "TCP_KEEPIDLE" },
	{ IPPROTO_TCP, TCP_KEEPINTVL, 11, "TCP_KEEPINTVL" },
	{ IPPROTO_TCP, TCP_KEEPCNT, 5, "TCP_KEEPCNT" },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, 54321, "TCP_USER_TIMEOUT" },
	{ IPPROTO_TCP, TCP_DEFER_ACCEPT, 7, "TCP_DEFER_ACCEPT" },
	{ IPPROTO_TCP, TCP_LINGER2, 19, "TCP_LINGER2" },
	{ IPPROTO_TCP, TCP_SYNCNT, 3, "TCP_SYNCNT" },
	{ IPPROTO_TCP, TCP_NOTSENT_LOWAT, 12345, "TCP_NOTSENT_LOWAT" },
	{ IPPROTO_TCP, TCP_WINDOW_CLAMP, 30000, "TCP_WINDOW_CLAMP" },
	{ IPPROTO_IP, IP_TOS, 0x10, "IP_TOS" },
	{ IPPROTO_IP, IP_TTL, 33, "IP_TTL" },
	{ IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO, "IP_MTU_DISCOVER" },
	{ IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1, "IP_BIND_ADDRESS_NO_PORT" },
};
#define N (int)(sizeof(opt) / sizeof(opt[0]))

int main(int argc, char **argv)
{
	struct timeval tv, rcv = { 7, 500000 };
	struct linger lin = { 1, 23 }, now;
	char reno[16] = "reno", cc[16];
	int fd[3], pair[2], was[3][N], bound;
	socklen_t n;

	conf_init(argc, argv);
	in_pair(AF_INET, pair);
	bound = in_bound(AF_INET, SOCK_STREAM);
	fd[0] = pair[0];
	fd[1] = bound;
	fd[2] = SYS(socket(AF_INET, SOCK_STREAM, 0));
	for (int k = 0; k < 3; k++) {
		for (int i = 0; i < N; i++)
			if (k || opt[i].name != SO_REUSEPORT)
				opt_set(fd[k], opt[i].level, opt[i].name, opt[i].value);
		SYS(setsockopt(fd[k], SOL_SOCKET, SO_LINGER, &lin, sizeof(lin)));
		SYS(setsockopt(fd[k], SOL_SOCKET, SO_RCVTIMEO, &rcv, sizeof(rcv)));
		SYS(setsockopt(fd[k], IPPROTO_TCP, TCP_CONGESTION, reno, 4));
		for (int i = 0; i < N; i++)
			was[k][i] = opt_int(fd[k], opt[i].level, opt[i].name);
	}
	conf_ready();
	conf_wait();
	for (int k = 0; k < 3; k++) {
		static const char *which[] = { "connected", "bound", "fresh" };

		for (int i = 0; i < N; i++) {
			int v = opt_int(fd[k], opt[i].level, opt[i].name);

			CHECK(v == was[k][i], "%s of the %s socket is %d, was %d", opt[i].what, which[k], v, was[k][i]);
		}
		n = sizeof(now);
		OK(getsockopt(fd[k], SOL_SOCKET, SO_LINGER, &now, &n));
		SAME(now.l_onoff, 1);
		SAME(now.l_linger, 23);
		n = sizeof(tv);
		OK(getsockopt(fd[k], SOL_SOCKET, SO_RCVTIMEO, &tv, &n));
		SAME(tv.tv_sec, 7);
		n = sizeof(cc);
		OK(getsockopt(fd[k], IPPROTO_TCP, TCP_CONGESTION, cc, &n));
		CHECK(!strcmp(cc, "reno"), "congestion control of the %s socket is %s", which[k], cc);
	}
	mf_write_stream(pair[0], 30000, 1, 0, "the connection");
	mf_expect_stream(pair[1], 30000, 1, 0, "the connection");
	conf_pass();
}
