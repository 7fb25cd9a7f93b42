// kind: unix sockets
// state: connection not yet accepted whose client has sent something and is closed already
// users: root nobody
// refused: a client that has closed its end already waits to be accepted
#include "sockaddr.h"

int main(int argc, char **argv)
{
	int l, fd;

	conf_init(argc, argv);
	l = un_listener(SOCK_STREAM, "listener", 10);
	fd = un_connected(SOCK_STREAM, "listener");
	mf_write_stream(fd, 50, 1, 0, "set-up");
	close(fd);
	conf_ready();
	conf_wait();
	fd = OK(accept(l, NULL, NULL));
	mf_expect_stream(fd, 50, 1, 0, "connection of who left");
	mf_eof(fd, "connection of who left");
	conf_pass();
}
