// kind: tcp
// state: urgent bytes (MSG_OOB) that wait, were read, are at the mark, are in line, have not arrived since there is no room
// users: root; only who may read the kernel's memory sees where they are
// mutate: fermata.sock_extra.urgent
// nocriu: knows no urgent data
#include "urgent.h"

static const int families[] = { AF_INET, AF_INET6 };

int main(int argc, char **argv)
{
	int sk[2][URGENT][2], full[2][2];
	size_t sent[2];

	conf_init(argc, argv);
	for (int f = 0; f < 2; f++) {
		for (int i = 0; i < URGENT; i++) {
			in_pair(families[f], sk[f][i]);
			urgent_send(sk[f][i][0], i);
		}
		out_pair(families[f], full[f]);
		sent[f] = out_fill(full[f][0], 1);
		/* Of the last bytes one is urgent, and waits here, where there is room for it. */
		opt_set(full[f][0], SOL_SOCKET, SO_SNDBUFFORCE, 16 << 20);
		SYS(send(full[f][0], "!", 1, MSG_OOB));
	}
	conf_sleep_ms(50);
	for (int f = 0; f < 2; f++)
		for (int i = 0; i < URGENT; i++)
			urgent_set_up(sk[f][i][1], i);
	conf_ready();
	conf_wait();
	for (int f = 0; f < 2; f++) {
		char b[2];

		for (int i = 0; i < URGENT; i++) {
			urgent_check(sk[f][i][1], i);
			mf_write_stream(sk[f][i][0], 100, 3, 0, urgent[i].name);
			mf_expect_stream(sk[f][i][1], 100, 3, 0, urgent[i].name);
			mf_write_stream(sk[f][i][1], 100, 4, 0, urgent[i].name);
			mf_expect_stream(sk[f][i][0], 100, 4, 0, urgent[i].name);
		}
		mf_expect_stream(full[f][1], sent[f], 1, 0, "the full one");
		struct pollfd p = { .fd = full[f][1], .events = POLLPRI };

		CHECK(poll(&p, 1, 5000) == 1, "the full one: no urgent byte comes");
		SAME(recv(full[f][1], b, 1, MSG_OOB), 1);
		SAME(b[0], '!');
	}
	conf_pass();
}
