// kind: udp
// state: connected UDP sockets that are shut down for writing, for reading, for both
// users: root nobody
// mutate: inet_sk_entry.shutdown
// short: yes
#include "sockaddr.h"
#include <poll.h>

static const int families[] = { AF_INET, AF_INET6 };

int main(int argc, char **argv)
{
	int sk[2][4][2];

	conf_init(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 2; i++)
		for (int how = 0; how < 4; how++) {
			struct sockaddr_storage s;
			socklen_t n;
			int *p = sk[i][how];

			p[0] = in_bound(families[i], SOCK_DGRAM);
			p[1] = in_bound(families[i], SOCK_DGRAM);
			for (int k = 0; k < 2; k++) {
				n = in_loop(&s, families[i], in_port(p[!k], false));
				SYS(connect(p[k], (struct sockaddr *)&s, n));
			}
			if (how)
				SYS(shutdown(p[0], how - 1));
		}
	conf_ready();
	conf_wait();
	for (int i = 0; i < 2; i++)
		for (int how = 0; how < 4; how++) {
			int *p = sk[i][how];
			bool in = how == 0 || how == 2, out = how < 2;
			struct pollfd f = { .fd = p[0], .events = POLLRDHUP };
			char b[10];
			ssize_t r;

			poll(&f, 1, 0);
			SAME((f.revents & POLLRDHUP) != 0, !in);
			SAME((f.revents & POLLHUP) != 0, !in && !out);
			r = send(p[0], "there", 5, MSG_NOSIGNAL);
			if (out) {
				SAME(r, 5);
				SAME(recv(p[1], b, sizeof(b), 0), 5);
			} else {
				CHECK(r < 0 && errno == EPIPE, "sending gives %zd, %s", r, strerror(errno));
			}
			SAME(send(p[1], "back", 4, 0), 4);
			if (in)
				SAME(recv(p[0], b, sizeof(b), 0), 4);
		}
	conf_pass();
}
