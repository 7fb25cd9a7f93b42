// kind: tcp
// state: ports that sockets share (SO_REUSEPORT, of UDP SO_REUSEADDR too) and share on although one has taken the option back: listeners, UDP sockets, IPv4 and IPv6
// users: root nobody
// mutate: inet_sk_entry.src_port sk_opts_entry.so_reuseport
// short: yes
#include "sockaddr.h"
#include <poll.h>

static int shared(int family, int type, int option, int port)
{
	struct sockaddr_storage s;
	socklen_t n = in_loop(&s, family, port);
	int fd = SYS(socket(family, type, 0));

	opt_set(fd, SOL_SOCKET, option, 1);
	SYS(bind(fd, (struct sockaddr *)&s, n));
	return fd;
}

int main(int argc, char **argv)
{
	static const int families[] = { AF_INET, AF_INET6 };
	int l[2][3], u[2][2], a[2][2], p[2][3];

	conf_init(argc, argv);
	for (int i = 0; i < 2; i++) {
		for (int k = 0; k < 3; k++) {
			l[i][k] = shared(families[i], SOCK_STREAM, SO_REUSEPORT, k ? p[i][0] : 0);
			p[i][0] = in_port(l[i][k], false);
			SYS(listen(l[i][k], 3 + k));
		}
		opt_set(l[i][1], SOL_SOCKET, SO_REUSEPORT, 0);
		for (int k = 0; k < 2; k++) {
			u[i][k] = shared(families[i], SOCK_DGRAM, SO_REUSEPORT, k ? p[i][1] : 0);
			p[i][1] = in_port(u[i][k], false);
			a[i][k] = shared(families[i], SOCK_DGRAM, SO_REUSEADDR, k ? p[i][2] : 0);
			p[i][2] = in_port(a[i][k], false);
		}
		opt_set(u[i][0], SOL_SOCKET, SO_REUSEPORT, 0);
		opt_set(a[i][0], SOL_SOCKET, SO_REUSEADDR, 0);
		opt_set(a[i][1], SOL_SOCKET, SO_REUSEADDR, 0);
	}
	conf_ready();
	conf_wait();
	for (int i = 0; i < 2; i++) {
		for (int k = 0; k < 3; k++) {
			SAME(in_port(l[i][k], false), p[i][0]);
			SAME(opt_int(l[i][k], SOL_SOCKET, SO_REUSEPORT), k != 1);
			SAME(opt_int(l[i][k], SOL_SOCKET, SO_ACCEPTCONN), 1);
		}
		for (int k = 0; k < 2; k++) {
			SAME(in_port(u[i][k], false), p[i][1]);
			SAME(opt_int(u[i][k], SOL_SOCKET, SO_REUSEPORT), k);
			SAME(opt_int(u[i][k], SOL_SOCKET, SO_REUSEADDR), 0);
			SAME(in_port(a[i][k], false), p[i][2]);
			SAME(opt_int(a[i][k], SOL_SOCKET, SO_REUSEADDR), 0);
			SAME(opt_int(a[i][k], SOL_SOCKET, SO_REUSEPORT), 0);
		}
		/* Of many that connect, one of them takes each. */
		for (int n = 0; n < 6; n++) {
			int c = in_connected(families[i], SOCK_STREAM, p[i][0]), got = 0;

			for (int k = 0; k < 3; k++) {
				struct pollfd f = { .fd = l[i][k], .events = POLLIN };

				if (poll(&f, 1, 0) > 0) {
					close(OK(accept(l[i][k], NULL, NULL)));
					got++;
				}
			}
			SAME(got, 1);
			close(c);
		}
	}
	conf_pass();
}
