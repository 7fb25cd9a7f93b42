// kind: tcp
// state: urgent bytes (MSG_OOB) that came from a process outside the tree: they wait, were read, are at the mark, are in line
// users: root; only CAP_NET_ADMIN lets a connection go on with another's sequence numbers
// mutate: fermata.sock_extra.urgent
// checkpoint: --tcp-established
// modes: restore left twice mutate
// nocriu: knows no urgent data
#include "urgent.h"

#define CONNS (2 * URGENT)

int main(int argc, char **argv)
{
	int sk[CONNS][2];
	char c;

	conf_init(argc, argv);
	for (int i = 0; i < CONNS; i++)
		in_pair(i < URGENT ? AF_INET : AF_INET6, sk[i]);
	if (out_fork() == 0) {
		for (int i = 0; i < CONNS; i++)
			close(sk[i][0]);
		for (int i = 0; i < CONNS; i++)
			urgent_send(sk[i][1], i % URGENT);
		for (int i = 0; i < CONNS; i++) { /* when the program has seen what came */
			mf_read_all(sk[i][1], &c, 1, "the peer");
			mf_write_stream(sk[i][1], 100, 1 + i, 0, "the peer");
			SYS(send(sk[i][1], "?", 1, MSG_OOB));
			mf_read_all(sk[i][1], &c, 1, "the peer");
		}
		_exit(0);
	}
	for (int i = 0; i < CONNS; i++)
		close(sk[i][1]);
	conf_sleep_ms(100);
	for (int i = 0; i < CONNS; i++)
		urgent_set_up(sk[i][0], i % URGENT);
	conf_ready();
	conf_wait();
	for (int i = 0; i < CONNS; i++) {
		struct pollfd p = { .fd = sk[i][0], .events = POLLPRI };

		urgent_check(sk[i][0], i % URGENT);
		mf_write_all(sk[i][0], "g", 1, "go on");
		mf_expect_stream(sk[i][0], 100, 1 + i, 0, urgent[i % URGENT].name);
		CHECK(poll(&p, 1, 5000) == 1, "%s: the next urgent byte does not come", urgent[i % URGENT].name);
		if (!urgent[i % URGENT].inlined) {
			SAME(recv(sk[i][0], &c, 1, MSG_OOB), 1);
			SAME(c, '?');
		}
		mf_write_all(sk[i][0], "k", 1, "done");
	}
	conf_pass();
}
