// kind: tcp
// state: connection not yet accepted whose client has sent something: only accepting would show it
// users: root nobody
// refused: it has sent data over a connection that nobody has accepted yet
#include "sockaddr.h"

int main(int argc, char **argv)
{
	int l, c, a;

	conf_init(argc, argv);
	l = in_listener(AF_INET, 10);
	c = in_connected(AF_INET, SOCK_STREAM, in_port(l, false));
	mf_write_stream(c, 3000, 1, 0, "set-up");
	conf_sleep_ms(5);
	conf_ready();
	conf_wait();
	a = OK(accept(l, NULL, NULL));
	mf_expect_stream(a, 3000, 1, 0, "connection");
	mf_write_stream(a, 100, 2, 0, "connection");
	mf_expect_stream(c, 100, 2, 0, "connection, back");
	conf_pass();
}
