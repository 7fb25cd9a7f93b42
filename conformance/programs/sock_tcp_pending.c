// kind: tcp
// state: connections not yet accepted; one of them accepted, used and closed afterwards
// users: root nobody
// mutate: fermata.sock_extra.pending inet_sk_entry.state
// nocriu: refuses connections that are not accepted
#include "sockaddr.h"

int main(int argc, char **argv)
{
	int l, c[2], a;

	conf_init(argc, argv);
	l = in_listener(AF_INET, 10);
	for (int i = 0; i < 2; i++)
		c[i] = in_connected(AF_INET, SOCK_STREAM, in_port(l, false));
	conf_sleep_ms(5);
	conf_ready();
	conf_wait();
	for (int i = 0; i < 2; i++) {
		mf_write_stream(c[i], 3000, i, 0, "connection");
		SAME(mf_poll(l, POLLIN), POLLIN);
		a = OK(accept(l, NULL, NULL));
		SAME(in_port(a, true), in_port(c[i], false));
		mf_expect_stream(a, 3000, i, 0, "connection");
		mf_write_stream(a, 100, 10 + i, 0, "connection");
		mf_expect_stream(c[i], 100, 10 + i, 0, "connection, back");
		close(a);
		mf_eof(c[i], "connection");
	}
	mf_set_nonblock(l, true);
	CHECK(accept(l, NULL, NULL) < 0 && errno == EAGAIN, "a third connection");
	conf_pass();
}
