// kind: tcp
// state: connection full in both directions: received and not read, sent and not received, written and not sent; a writer asleep
// users: root nobody
// mutate: part:tcp-stream
// nocriu: restore: fails without a packet filter
// unprivileged: only who has CAP_NET_ADMIN
#include "sockaddr.h"

static int sk[2];
static size_t forth, back;

static void writer(void)
{
	close(sk[1]);
	mf_set_nonblock(sk[0], false);
	mf_write_stream(sk[0], 1000000, 1, forth, "the writer");
	OK(shutdown(sk[0], SHUT_WR));
	mf_expect_stream(sk[0], back, 2, 0, "the writer's queue");
	mf_eof(sk[0], "the writer's queue");
}

int main(int argc, char **argv)
{
	pid_t w;

	conf_init(argc, argv);
	in_pair(AF_INET, sk);
	for (int i = 0; i < 2; i++) {
		opt_set(sk[i], SOL_SOCKET, SO_SNDBUF, 200000);
		opt_set(sk[i], SOL_SOCKET, SO_RCVBUF, 60000);
		mf_set_nonblock(sk[i], true);
	}
	/* What is sent moves on for a while. */
	for (int i = 0; i < 5; i++) {
		forth += mf_flood(sk[0], 1, forth);
		back += mf_flood(sk[1], 2, back);
		conf_sleep_ms(5);
	}
	conf_log("%zu bytes forth, %zu back", forth, back);
	w = mf_spawn(writer);
	close(sk[0]);
	mf_set_nonblock(sk[1], false);
	UNTIL(conf_in_syscall(w, SYS_write), "the writer to sleep");
	conf_ready();
	conf_wait();
	mf_expect_stream(sk[1], forth + 1000000, 1, 0, "what was on its way and more");
	mf_eof(sk[1], "what was on its way and more");
	close(sk[1]);
	conf_reap_ok(w);
	conf_pass();
}
