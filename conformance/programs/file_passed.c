// kind: files
// state: open files shared by processes that did not inherit them: passed over a socket to a brother and a grandchild
// users: root nobody
// mutate: fdinfo_entry.id
#include "memfile.h"

static int way[2], far[2];

/* Opens files after the fork, passes them on. */
static void giver(void)
{
	int fds[3], sk;

	fds[0] = SYS(open("f", O_RDWR));
	fds[1] = SYS(open("f", O_RDWR));
	SYS(pipe(fds + 1));
	sk = way[0];
	SYS(lseek(fds[0], 100, SEEK_SET));
	mf_send_fds(sk, fds, 3, "x", 1);
	mf_send_fds(far[0], fds, 1, "x", 1);
	close(way[0]);
	close(way[1]);
	close(far[0]);
	close(far[1]);
	mf_mark("giver-set");
	conf_wait();
	mf_expect_stream(fds[0], 10, 1, 100, "the passed file");
	mf_mark("giver-read");
	mf_await("taker-read");
	SAME(lseek(fds[0], 0, SEEK_CUR), 130);
	mf_write_stream(fds[2], 100, 2, 0, "the passed pipe");
}

static void grandchild(void)
{
	int fd;
	char c;

	mf_recv_fds(far[1], &fd, 1, &c, 1, 0);
	SYS(dup2(fd, 90));
	close(fd);
	close(far[0]);
	close(far[1]);
	close(way[0]);
	close(way[1]);
	mf_mark("grandchild-set");
	conf_wait();
	mf_await("giver-read");
	mf_expect_stream(90, 10, 1, 110, "the passed file");
	mf_mark("grandchild-read");
}

static void taker(void)
{
	pid_t pid = mf_spawn(grandchild);
	int fds[3];
	char c;

	mf_recv_fds(way[1], fds, 3, &c, 1, 0);
	close(fds[2]);
	close(way[0]);
	close(way[1]);
	close(far[0]);
	close(far[1]);
	mf_mark("taker-set");
	conf_wait();
	mf_await("grandchild-read");
	mf_expect_stream(fds[0], 10, 1, 120, "the passed file");
	mf_mark("taker-read");
	mf_expect_stream(fds[1], 100, 2, 0, "the passed pipe");
	conf_reap_ok(pid);
	mf_eof(fds[1], "the passed pipe");
}

int main(int argc, char **argv)
{
	pid_t a, b;

	conf_init(argc, argv);
	mf_file("f", 1000, 1);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, way));
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, far));
	a = mf_spawn(giver);
	b = mf_spawn(taker);
	close(way[0]);
	close(way[1]);
	close(far[0]);
	close(far[1]);
	mf_await("giver-set");
	mf_await("taker-set");
	mf_await("grandchild-set");
	conf_ready();
	conf_wait();
	conf_reap_ok(a);
	conf_reap_ok(b);
	conf_pass();
}
