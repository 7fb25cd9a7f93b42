// kind: unix sockets
// state: connections not yet accepted whose clients are closed already: with data, without, with a name, with a client left between them
// users: root nobody
// mutate: fermata.sock_extra.arrived fermata.sock_extra.pending
// unprivileged: the kernel's memory cannot be read here
#include "sockaddr.h"

int main(int argc, char **argv)
{
	struct sockaddr_un a;
	socklen_t n;
	struct ucred u;
	int l, fd, left;

	conf_init(argc, argv);
	l = un_listener(SOCK_STREAM, "listener", 10);
	fd = un_connected(SOCK_STREAM, "listener");
	mf_write_stream(fd, 50, 1, 0, "set-up");
	close(fd);
	close(un_connected(SOCK_STREAM, "listener"));
	left = un_connected(SOCK_STREAM, "listener");
	fd = un_bound(SOCK_STREAM, "@conformance-client");
	n = un_addr(&a, "listener");
	SYS(connect(fd, (struct sockaddr *)&a, n));
	mf_write_stream(fd, 20, 2, 0, "set-up");
	close(fd);
	conf_ready();
	conf_wait();
	fd = OK(accept(l, NULL, NULL));
	mf_expect_stream(fd, 50, 1, 0, "connection of who left");
	mf_eof(fd, "connection of who left");
	n = sizeof(u);
	OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n));
	SAME(u.pid, getpid());
	SAME(u.uid, geteuid());
	fd = OK(accept(l, NULL, NULL));
	mf_eof(fd, "connection of who left without a word");
	fd = OK(accept(l, NULL, NULL));
	mf_write_stream(left, 30, 3, 0, "who stayed");
	mf_expect_stream(fd, 30, 3, 0, "who stayed");
	fd = OK(accept(l, NULL, NULL));
	un_is(fd, true, "@conformance-client", "who left");
	mf_expect_stream(fd, 20, 2, 0, "connection of who had a name");
	mf_eof(fd, "connection of who had a name");
	conf_pass();
}
