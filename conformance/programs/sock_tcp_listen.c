// kind: tcp
// state: listeners: IPv4, IPv6 only, both; options set on them; connecting works as before
// users: root nobody
// mutate: inet_sk_entry.state inet_sk_entry.src_port
// short: yes
#include "sockaddr.h"

int main(int argc, char **argv)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
	int l4, l6, both, port[3], a, b, len4;
	struct tcp_info ti;
	socklen_t n = sizeof(ti);

	conf_init(argc, argv);
	l4 = SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	opt_set(l4, SOL_SOCKET, SO_REUSEADDR, 1);
	opt_set(l4, IPPROTO_TCP, TCP_NODELAY, 1);
	opt_set(l4, SOL_SOCKET, SO_RCVBUF, 50000);
	struct sockaddr_storage s;
	socklen_t len = in_loop(&s, AF_INET, 0);
	SYS(bind(l4, (struct sockaddr *)&s, len));
	SYS(listen(l4, 13));
	SYS(getsockopt(l4, IPPROTO_TCP, TCP_INFO, &ti, &n));
	len4 = ti.tcpi_sacked;
	l6 = SYS(socket(AF_INET6, SOCK_STREAM, 0));
	opt_set(l6, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	len = in_loop(&s, AF_INET6, 0);
	SYS(bind(l6, (struct sockaddr *)&s, len));
	SYS(listen(l6, 5));
	both = SYS(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0));
	opt_set(both, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	SYS(bind(both, (struct sockaddr *)&any, sizeof(any)));
	SYS(listen(both, 5));
	port[0] = in_port(l4, false);
	port[1] = in_port(l6, false);
	port[2] = in_port(both, false);
	conf_ready();
	conf_wait();
	SAME(in_port(l4, false), port[0]);
	SAME(in_port(l6, false), port[1]);
	SAME(in_port(both, false), port[2]);
	SAME(fcntl(l4, F_GETFD), FD_CLOEXEC);
	SAME(fcntl(both, F_GETFL), O_RDWR | O_NONBLOCK);
	SAME(opt_int(l4, SOL_SOCKET, SO_ACCEPTCONN), 1);
	SAME(opt_int(l4, SOL_SOCKET, SO_REUSEADDR), 1);
	SAME(opt_int(l4, IPPROTO_TCP, TCP_NODELAY), 1);
	SAME(opt_int(l4, SOL_SOCKET, SO_RCVBUF), 100000);
	SAME(opt_int(l6, SOL_SOCKET, SO_REUSEADDR), 0);
	SAME(opt_int(l6, IPPROTO_IPV6, IPV6_V6ONLY), 1);
	SAME(opt_int(both, IPPROTO_IPV6, IPV6_V6ONLY), 0);
	n = sizeof(ti);
	OK(getsockopt(l4, IPPROTO_TCP, TCP_INFO, &ti, &n));
	SAME(ti.tcpi_state, TCP_LISTEN);
	SAME(ti.tcpi_sacked, len4);	/* the backlog, of a listener */
	CHECK(accept(both, NULL, NULL) < 0 && errno == EAGAIN, "a connection from nowhere");
	a = in_connected(AF_INET, SOCK_STREAM, port[0]);
	b = OK(accept(l4, NULL, NULL));
	SAME(opt_int(b, IPPROTO_TCP, TCP_NODELAY), 1);	/* inherited */
	mf_write_stream(a, 100, 1, 0, "IPv4");
	mf_expect_stream(b, 100, 1, 0, "IPv4");
	a = in_connected(AF_INET6, SOCK_STREAM, port[1]);
	b = OK(accept(l6, NULL, NULL));
	mf_write_stream(a, 100, 2, 0, "IPv6");
	mf_expect_stream(b, 100, 2, 0, "IPv6");
	a = in_connected(AF_INET, SOCK_STREAM, port[2]);
	UNTIL((b = accept(both, NULL, NULL)) >= 0, "a connection");
	a = in_connected(AF_INET6, SOCK_STREAM, port[2]);
	UNTIL((b = accept(both, NULL, NULL)) >= 0, "a connection");
	conf_pass();
}
