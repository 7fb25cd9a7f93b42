// kind: tcp
// state: connections within the tree, IPv4 and IPv6: unread data on both sides, ports, names; between parent and child
// users: root nobody
// mutate: tcp_stream_entry part:tcp-stream
// short: yes
#include "sockaddr.h"

static int sk[2][2], port[2][2];

static void child(void)
{
	for (int i = 0; i < 2; i++)
		close(sk[i][0]);
	mf_mark("child-set");
	conf_wait();
	for (int i = 0; i < 2; i++) {
		SAME(in_port(sk[i][1], false), port[i][1]);
		SAME(in_port(sk[i][1], true), port[i][0]);
		mf_expect_stream(sk[i][1], 20000, i, 0, "what the child had not read");
		mf_write_stream(sk[i][1], 100000, 20 + i, 0, "the child's answer");
		mf_expect_stream(sk[i][1], 300000, 30 + i, 0, "more from the parent");
		mf_eof(sk[i][1], "from the parent");
	}
}

int main(int argc, char **argv)
{
	pid_t pid;

	conf_init(argc, argv);
	for (int i = 0; i < 2; i++) {
		in_pair(i ? AF_INET6 : AF_INET, sk[i]);
		port[i][0] = in_port(sk[i][0], false);
		port[i][1] = in_port(sk[i][1], false);
		mf_write_stream(sk[i][0], 20000, i, 0, "set-up");
		mf_write_stream(sk[i][1], 30000, 10 + i, 0, "set-up");
		mf_expect_stream(sk[i][0], 1000, 10 + i, 0, "set-up");
	}
	pid = mf_spawn(child);
	for (int i = 0; i < 2; i++)
		close(sk[i][1]);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	for (int i = 0; i < 2; i++) {
		SAME(in_port(sk[i][0], false), port[i][0]);
		SAME(in_port(sk[i][0], true), port[i][1]);
		SAME(opt_int(sk[i][0], SOL_SOCKET, SO_ERROR), 0);
		mf_expect_stream(sk[i][0], 29000, 10 + i, 1000, "what the parent had not read");
		mf_expect_stream(sk[i][0], 100000, 20 + i, 0, "the child's answer");
		mf_write_stream(sk[i][0], 300000, 30 + i, 0, "more from the parent");
		OK(shutdown(sk[i][0], SHUT_WR));
	}
	conf_reap_ok(pid);
	for (int i = 0; i < 2; i++)
		mf_eof(sk[i][0], "from the child");
	conf_pass();
}
