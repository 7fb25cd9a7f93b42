// kind: unix sockets
// state: descriptors on their way (SCM_RIGHTS): the only reference to a file, a pipe with content, a deleted file, an eventfd; in stream and datagram sockets
// users: root nobody
// mutate: sk_packet_entry scm_entry
// short: yes
// nocriu: loses the flags of an eventfd on its way
#include "sockaddr.h"
#include <sys/eventfd.h>

int main(int argc, char **argv)
{
	int st[2], dg[2], p[2], fds[4], keep, gone;
	char buf[64];
	uint64_t v;

	conf_init(argc, argv);
	mf_file("f", 1000, 1);
	mf_file("gone", 1000, 2);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, st));
	SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, dg));
	SYS(pipe(p));
	mf_write_stream(p[1], 500, 3, 0, "set-up");
	fds[0] = SYS(open("f", O_RDWR));
	SYS(lseek(fds[0], 123, SEEK_SET));
	fds[1] = p[0];
	gone = SYS(open("gone", O_RDONLY));
	SYS(unlink("gone"));
	keep = SYS(open("f", O_RDONLY));
	/* Data before, between and behind the descriptors. */
	mf_write_all(st[0], "plain", 5, "set-up");
	mf_send_fds(st[0], fds, 2, "with-two", 8);
	mf_write_all(st[0], "more", 4, "set-up");
	mf_send_fds(st[0], &keep, 1, "z", 1);
	close(fds[0]);
	close(p[0]);
	fds[2] = SYS(eventfd(77, EFD_SEMAPHORE));
	fds[3] = gone;
	mf_send_fds(dg[0], fds + 2, 2, "datagram", 8);
	close(fds[2]);
	close(gone);
	SYS(send(dg[0], "plain", 5, 0));
	conf_ready();
	conf_wait();
	for (int i = 3; i < 64; i++)	/* nothing of it is ours before it is received */
		CHECK(i == st[0] || i == st[1] || i == dg[0] || i == dg[1] || i == p[1] || i == keep || fcntl(i, F_GETFD) < 0,
		      "descriptor %d is open", i);
	/* A stream gives the data up to the end of a message with descriptors. */
	SAME(mf_recv_fds(st[1], fds, 2, buf, sizeof(buf), MSG_CMSG_CLOEXEC), 13);
	CHECK(!memcmp(buf, "plainwith-two", 13), "the data with the descriptors is %.13s", buf);
	SAME(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	SAME(lseek(fds[0], 0, SEEK_CUR), 123);
	mf_expect_stream(fds[0], 100, 1, 123, "the file that was on its way");
	mf_expect_stream(fds[1], 500, 3, 0, "the pipe that was on its way");
	mf_write_stream(p[1], 10, 4, 0, "the pipe's other end");
	mf_expect_stream(fds[1], 10, 4, 0, "the pipe that was on its way");
	SAME(mf_recv_fds(st[1], fds, 1, buf, sizeof(buf), 0), 5);
	CHECK(!memcmp(buf, "morez", 5), "the data with the third descriptor is %.5s", buf);
	CHECK(mf_same_file(getpid(), fds[0], getpid(), keep), "a file that was sent is not the one that was kept");
	SAME(mf_recv_fds(dg[1], fds, 2, buf, sizeof(buf), 0), 8);
	CHECK(!memcmp(buf, "datagram", 8), "the datagram is %.8s", buf);
	SAME(read(fds[0], &v, 8), 8);
	SAME(v, 1);
	mf_expect_stream(fds[1], 1000, 2, 0, "the deleted file that was on its way");
	SAME(mf_recv_fds(dg[1], NULL, 0, buf, sizeof(buf), 0), 5);
	mf_empty(st[1], "stream");
	mf_empty(dg[1], "datagrams");
	conf_pass();
}
