// kind: tcp
// state: sockets bound and not listening, and such that are nothing yet; both can still be used
// users: root nobody
// mutate: inet_sk_entry.src_port
#include "sockaddr.h"

int main(int argc, char **argv)
{
	struct sockaddr_storage s;
	int bound, bound6, fresh, fresh6, port, port6, c;
	socklen_t n;

	conf_init(argc, argv);
	bound = in_bound(AF_INET, SOCK_STREAM);
	bound6 = in_bound(AF_INET6, SOCK_STREAM);
	port = in_port(bound, false);
	port6 = in_port(bound6, false);
	fresh = SYS(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	fresh6 = SYS(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
	conf_ready();
	conf_wait();
	SAME(in_port(bound, false), port);
	SAME(in_port(bound6, false), port6);
	SAME(in_port(fresh, false), 0);
	SAME(fcntl(fresh, F_GETFL), O_RDWR | O_NONBLOCK);
	SAME(fcntl(fresh6, F_GETFD), FD_CLOEXEC);
	SAME(opt_int(bound, SOL_SOCKET, SO_ACCEPTCONN), 0);
	n = in_loop(&s, AF_INET, port);
	CHECK(bind(fresh, (struct sockaddr *)&s, n) < 0 && errno == EADDRINUSE, "the bound port is free");
	OK(listen(bound, 3));
	c = in_connected(AF_INET, SOCK_STREAM, port);
	mf_write_stream(c, 10, 1, 0, "connection");
	mf_expect_stream(OK(accept(bound, NULL, NULL)), 10, 1, 0, "connection");
	OK(listen(bound6, 3));
	n = in_loop(&s, AF_INET6, port6);
	OK(connect(fresh6, (struct sockaddr *)&s, n));
	mf_write_stream(fresh6, 10, 2, 0, "connection");
	mf_expect_stream(OK(accept(bound6, NULL, NULL)), 10, 2, 0, "connection");
	conf_pass();
}
