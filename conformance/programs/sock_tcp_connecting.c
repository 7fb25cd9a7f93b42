// kind: tcp
// state: a connection that is being made (SYN_SENT), since the listener has no room for it yet; IPv4 and IPv6
// users: root nobody
// mutate: inet_sk_entry.dst_port
// nocriu: has a connection that nobody has accepted
#include "sockaddr.h"
#include <poll.h>

static const int families[] = { AF_INET, AF_INET6 };

int main(int argc, char **argv)
{
	int l[2], first[2], second[2];

	conf_init(argc, argv);
	for (int i = 0; i < 2; i++) {
		struct sockaddr_storage s;
		socklen_t n;
		int r;

		l[i] = in_listener(families[i], 0);
		first[i] = in_connected(families[i], SOCK_STREAM, in_port(l[i], false));
		conf_sleep_ms(20);
		n = in_loop(&s, families[i], in_port(l[i], false));
		second[i] = SYS(socket(families[i], SOCK_STREAM | SOCK_NONBLOCK, 0));
		r = connect(second[i], (struct sockaddr *)&s, n);
		CHECK(r < 0 && errno == EINPROGRESS, "set-up: connect gives %d, %s", r, strerror(errno));
	}
	conf_ready();
	conf_wait();
	for (int i = 0; i < 2; i++) {
		struct pollfd f = { .fd = second[i], .events = POLLOUT };
		char b[8];
		int a, e;

		CHECK(poll(&f, 1, 0) == 0, "the second is %#x already", f.revents);
		a = OK(accept(l[i], NULL, NULL));
		mf_write_stream(first[i], 100, 1, 0, "the first");
		mf_expect_stream(a, 100, 1, 0, "the first");
		/* What was not answered is sent again, after seconds. */
		CHECK(poll(&f, 1, 20000) == 1, "the second does not come about");
		e = opt_int(second[i], SOL_SOCKET, SO_ERROR);
		CHECK(e == 0, "the second: %s", strerror(e));
		a = OK(accept(l[i], NULL, NULL));
		SAME(in_port(a, true), in_port(second[i], false));
		SAME(write(a, "welcome", 7), 7);
		f.events = POLLIN;
		SAME(poll(&f, 1, 5000), 1);
		SAME(read(second[i], b, sizeof(b)), 7);
	}
	conf_pass();
}
