// kind: unix sockets
// state: connection not yet accepted whose client has sent something: only accepting would show it
// users: root nobody
// refused: it has sent data over a connection that nobody has accepted yet
#include "sockaddr.h"

int main(int argc, char **argv)
{
	int l, fd, got;

	conf_init(argc, argv);
	l = un_listener(SOCK_STREAM, "listener", 10);
	fd = un_connected(SOCK_STREAM, "listener");
	mf_write_stream(fd, 50, 1, 0, "set-up");
	conf_ready();
	conf_wait();
	got = OK(accept(l, NULL, NULL));
	mf_expect_stream(got, 50, 1, 0, "connection");
	mf_write_stream(got, 50, 2, 0, "connection");
	mf_expect_stream(fd, 50, 2, 0, "connection");
	conf_pass();
}
