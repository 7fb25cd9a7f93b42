// kind: udp
// state: UDP sockets, IPv4 and IPv6: fresh, bound, connected to one another, with options
// users: root nobody
// mutate: inet_sk_entry.src_port inet_sk_entry.dst_port
// short: yes
// nocriu: forgets SO_TIMESTAMP
#include "sockaddr.h"

static const struct {
	int family, level, name, value;
	const char *what;
} opt[] = {
	{ 0, SOL_SOCKET, SO_BROADCAST, 1, "SO_BROADCAST" },
	{ 0, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR" },
	{ 0, SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT" },
	{ 0, SOL_SOCKET, SO_RCVBUF, 33333, "SO_RCVBUF" },
	{ 0, SOL_SOCKET, SO_NO_CHECK, 1, "SO_NO_CHECK" },
	{ 0, SOL_SOCKET, SO_TIMESTAMP, 1, "SO_TIMESTAMP" },
	{ AF_INET, IPPROTO_IP, IP_PKTINFO, 1, "IP_PKTINFO" },
	{ AF_INET, IPPROTO_IP, IP_RECVERR, 1, "IP_RECVERR" },
	{ AF_INET, IPPROTO_IP, IP_TTL, 5, "IP_TTL" },
	{ AF_INET, IPPROTO_IP, IP_TOS, 8, "IP_TOS" },
	{ AF_INET, IPPROTO_IP, IP_MULTICAST_TTL, 9, "IP_MULTICAST_TTL" },
	{ AF_INET, IPPROTO_IP, IP_MULTICAST_LOOP, 0, "IP_MULTICAST_LOOP" },
	{ AF_INET, IPPROTO_IP, IP_RECVTTL, 1, "IP_RECVTTL" },
	{ AF_INET, IPPROTO_IP, IP_FREEBIND, 1, "IP_FREEBIND" },
	{ AF_INET6, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO" },
	{ AF_INET6, IPPROTO_IPV6, IPV6_RECVERR, 1, "IPV6_RECVERR" },
	{ AF_INET6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 6, "IPV6_UNICAST_HOPS" },
	{ AF_INET6, IPPROTO_IPV6, IPV6_TCLASS, 32, "IPV6_TCLASS" },
	{ AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, 1, "IPV6_V6ONLY" },
};
#define N (int)(sizeof(opt) / sizeof(opt[0]))

static void use(int family)
{
	int bound, a, b, fresh, port, was[N];
	struct sockaddr_storage s;
	socklen_t n;
	char buf[16];

	fresh = SYS(socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0));
	for (int i = 0; i < N; i++)
		if (!opt[i].family || opt[i].family == family)
			opt_set(fresh, opt[i].level, opt[i].name, opt[i].value);
	for (int i = 0; i < N; i++)
		if (!opt[i].family || opt[i].family == family)
			was[i] = opt_int(fresh, opt[i].level, opt[i].name);
	bound = in_bound(family, SOCK_DGRAM);
	port = in_port(bound, false);
	a = in_connected(family, SOCK_DGRAM, port);
	b = in_bound(family, SOCK_DGRAM);
	n = in_loop(&s, family, in_port(a, false));
	SYS(connect(b, (struct sockaddr *)&s, n));	/* b sends to a; a hears bound only */
	int pa = in_port(a, false), pb = in_port(b, false);

	if (family == AF_INET6)
		conf_ready();
	else
		use(AF_INET6);
	conf_wait();
	for (int i = 0; i < N; i++)
		if (!opt[i].family || opt[i].family == family) {
			int v = opt_int(fresh, opt[i].level, opt[i].name);

			CHECK(v == was[i], "%s is %d, was %d", opt[i].what, v, was[i]);
		}
	SAME(in_port(bound, false), port);
	SAME(in_port(a, false), pa);
	SAME(in_port(a, true), port);
	SAME(in_port(b, false), pb);
	SAME(in_port(b, true), pa);
	SAME(fcntl(fresh, F_GETFL), O_RDWR | O_NONBLOCK);
	SAME(send(a, "from a", 6, 0), 6);
	n = sizeof(s);
	SAME(recvfrom(bound, buf, sizeof(buf), 0, (struct sockaddr *)&s, &n), 6);
	SAME(sendto(bound, "back", 4, 0, (struct sockaddr *)&s, n), 4);
	SAME(recv(a, buf, sizeof(buf), 0), 4);
	SAME(send(b, "x", 1, 0), 1);		/* a is connected to another */
	mf_empty(a, "a connected socket gets what is not for it");
	CHECK(send(fresh, "x", 1, 0) < 0 && errno == EDESTADDRREQ, "the fresh socket is connected");
	n = in_loop(&s, family, port);
	SAME(sendto(fresh, "fresh", 5, 0, (struct sockaddr *)&s, n), 5);
	SAME(recv(bound, buf, sizeof(buf), 0), 5);
}

int main(int argc, char **argv)
{
	conf_init(argc, argv);
	use(AF_INET);
	conf_pass();
}
