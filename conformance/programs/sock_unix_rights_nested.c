// kind: unix sockets
// state: sockets on their way through sockets on their way, each with data in it
// users: root nobody
// mutate: sk_packet_entry
// nocriu: cannot restore a socket that is only on its way
#include "sockaddr.h"

int main(int argc, char **argv)
{
	int a[2], b[2], c[2], fd[2];
	char buf[64];

	conf_init(argc, argv);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, a));
	SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, b));
	SYS(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, c));
	SYS(send(c[0], "innermost", 9, 0));
	mf_send_fds(b[0], &c[1], 1, "b", 1);
	SYS(send(b[0], "behind", 6, 0));
	fd[0] = b[0];
	fd[1] = b[1];
	mf_send_fds(a[0], fd, 2, "a", 1);	/* both ends of b */
	close(b[0]);
	close(b[1]);
	close(c[1]);
	conf_ready();
	conf_wait();
	SAME(mf_recv_fds(a[1], b, 2, buf, sizeof(buf), 0), 1);
	CHECK(buf[0] == 'a', "data of a is %c", buf[0]);
	SAME(mf_recv_fds(b[1], fd, 1, buf, sizeof(buf), 0), 1);
	CHECK(buf[0] == 'b', "data of b is %c", buf[0]);
	SAME(recv(b[1], buf, sizeof(buf), 0), 6);
	SAME(recv(fd[0], buf, sizeof(buf), 0), 9);
	CHECK(!memcmp(buf, "innermost", 9), "data of c is %.9s", buf);
	SAME(send(fd[0], "back", 4, 0), 4);
	SAME(recv(c[0], buf, sizeof(buf), 0), 4);
	SAME(send(b[0], "again", 5, 0), 5);
	SAME(recv(b[1], buf, sizeof(buf), 0), 5);
	conf_pass();
}
