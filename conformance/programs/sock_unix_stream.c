// kind: unix sockets
// state: stream pair with data queued in both directions, partly read, shared with a child
// users: root nobody
// mutate: sk_packet_entry unix_sk_entry.peer
// short: yes
#include "memfile.h"

static int sk[2];

static void child(void)
{
	close(sk[0]);
	mf_mark("child-set");
	conf_wait();
	mf_expect_stream(sk[1], 50000 - 777, 1, 777, "the child's end");
	mf_write_stream(sk[1], 1000, 2, 100000, "the child's end");
	mf_expect_stream(sk[1], 10, 3, 0, "the child's end");
	mf_eof(sk[1], "the child's end");
}

int main(int argc, char **argv)
{
	pid_t pid;

	conf_init(argc, argv);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sk));
	mf_write_stream(sk[0], 50000, 1, 0, "set-up");
	mf_write_stream(sk[1], 100000, 2, 0, "set-up");
	mf_expect_stream(sk[1], 777, 1, 0, "set-up");
	pid = mf_spawn(child);
	mf_await("child-set");
	close(sk[1]);
	SYS(fcntl(sk[0], F_SETFD, FD_CLOEXEC));
	conf_ready();
	conf_wait();
	SAME(fcntl(sk[0], F_GETFD), FD_CLOEXEC);
	SAME(fcntl(sk[0], F_GETFL), O_RDWR);
	mf_expect_stream(sk[0], 101000, 2, 0, "the parent's end");
	mf_empty(sk[0], "the parent's end");
	mf_write_stream(sk[0], 10, 3, 0, "the parent's end");
	OK(shutdown(sk[0], SHUT_WR));
	conf_reap_ok(pid);
	mf_eof(sk[0], "the parent's end");
	conf_pass();
}
