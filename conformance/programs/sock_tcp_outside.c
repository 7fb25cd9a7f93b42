// kind: tcp
// state: connections to a process outside the tree, which sends on meanwhile: established with data in both queues, unsent data too; shut down by the program, by the peer, by both, with all acknowledged and not (FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, CLOSING, LAST_ACK); IPv4 and IPv6
// users: root; only CAP_NET_ADMIN lets a connection go on with another's sequence numbers
// mutate: part:tcp-stream fermata.sock_extra.outside
// checkpoint: --tcp-established
// modes: restore left twice mutate
// nocriu: the comparison runs it without its lock on the network
// pause: 700ms
#include "outside.h"

/* What a connection's ends do before the checkpoint. */
enum {
	FULL = 1,  /* the program sends until there is no more room */
	ENDS = 2,  /* then it shuts down its direction */
	CLOSED = 4 /* the peer shuts down its own, before */
};

static const struct {
	const char *name;
	int what, state;
} kinds[] = {
	{ "idle", 0, TCP_ESTABLISHED },
	{ "full", FULL, TCP_ESTABLISHED },
	{ "ended", ENDS, TCP_FIN_WAIT2 },
	{ "full, ended", FULL | ENDS, TCP_FIN_WAIT1 },
	{ "ended by the peer", CLOSED, TCP_CLOSE_WAIT },
	{ "full, ended by the peer", FULL | CLOSED, TCP_CLOSE_WAIT },
	{ "full, ended by both", FULL | ENDS | CLOSED, TCP_LAST_ACK },
	{ "full, ended by both at once", FULL | ENDS | CLOSED, TCP_CLOSING },
};
#define KINDS ((int)(sizeof(kinds) / sizeof(kinds[0])))
#define CONNS (2 * KINDS)

#define BACK 3000     /* what the peer sends before the checkpoint */
#define MORE 50000    /* what either sends at the end, where it can */

static int sk[CONNS][2], control[2], ticks[2];
static size_t sent[CONNS];

/*
 * The process outside: sends and ends as the kinds say, counts on a connection of
 * its own, without a pause, and at the word "go" reads everything. What it finds
 * goes to the program, as a line of text.
 */
static void peer(void)
{
	char c;

	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < CONNS; i++) {
		mf_write_stream(sk[i][1], BACK, 100 + i, 0, "the peer");
		if (kinds[i % KINDS].what & CLOSED && kinds[i % KINDS].state != TCP_CLOSING)
			shutdown(sk[i][1], SHUT_WR);
	}
	for (;;) {
		struct pollfd p = { .fd = control[1], .events = POLLIN };
		static uint32_t count;

		if (write(ticks[1], &count, sizeof(count)) != sizeof(count))
			conf_fail("the peer: number %u: %s", count, strerror(errno));
		count++;
		if (poll(&p, 1, 2) <= 0)
			continue;
		mf_read_all(control[1], &c, 1, "the peer: control");
		if (c == 'g')
			break;
		for (int i = 0; i < CONNS; i++) /* the others have ended by now */
			if (kinds[i % KINDS].state == TCP_CLOSING)
				shutdown(sk[i][1], SHUT_WR);
	}
	close(ticks[1]);
	for (int i = 0; i < CONNS; i++) {
		int what = kinds[i % KINDS].what;
		size_t n;
		char name[80];

		snprintf(name, sizeof(name), "the peer of %s", kinds[i % KINDS].name);
		mf_read_all(control[1], &n, sizeof(n), "the peer: control");
		mf_expect_stream(sk[i][1], n, 1 + i, 0, name);
		if (what & ENDS)
			mf_eof(sk[i][1], name);
		if (!(what & CLOSED))
			mf_write_stream(sk[i][1], MORE, 100 + i, BACK, name);
		close(sk[i][1]);
	}
	mf_write_all(control[1], "k", 1, "the peer: control");
	mf_read_all(control[1], &c, 1, "the peer: control"); /* until the program has seen it */
	_exit(0);
}

int main(int argc, char **argv)
{
	uint32_t count;
	char c;

	conf_init(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < CONNS; i++)
		out_pair(i < KINDS ? AF_INET : AF_INET6, sk[i]);
	in_pair(AF_INET, control);
	in_pair(AF_INET6, ticks);
	if (out_fork() == 0) {
		for (int i = 0; i < CONNS; i++)
			close(sk[i][0]);
		close(control[0]);
		close(ticks[0]);
		peer();
	}
	for (int i = 0; i < CONNS; i++)
		close(sk[i][1]);
	close(control[1]);
	close(ticks[1]);
	conf_sleep_ms(50);
	for (int i = 0; i < CONNS; i++) {
		if (kinds[i % KINDS].what & FULL)
			sent[i] = out_fill(sk[i][0], 1 + i);
		if (kinds[i % KINDS].what & ENDS)
			SYS(shutdown(sk[i][0], SHUT_WR));
	}
	mf_write_all(control[0], "e", 1, "set-up");
	conf_sleep_ms(50);
	for (int i = 0; i < CONNS; i++)
		out_state(sk[i][0], kinds[i % KINDS].state, kinds[i % KINDS].name);
	conf_ready();
	conf_wait();
	for (int i = 0; i < CONNS; i++)
		out_state(sk[i][0], kinds[i % KINDS].state, kinds[i % KINDS].name);
	mf_write_all(control[0], "g", 1, "control");
	for (int i = 0; i < CONNS; i++) {
		int what = kinds[i % KINDS].what;
		const char *name = kinds[i % KINDS].name;
		size_t n = sent[i] + (what & ENDS ? 0 : MORE);

		mf_write_all(control[0], &n, sizeof(n), "control");
		if (!(what & ENDS))
			mf_write_stream(sk[i][0], MORE, 1 + i, sent[i], name);
		mf_expect_stream(sk[i][0], BACK + (what & CLOSED ? 0 : MORE), 100 + i, 0, name);
		mf_eof(sk[i][0], name);
		close(sk[i][0]);
	}
	for (uint32_t want = 0;; want++) {
		ssize_t n = recv(ticks[0], &count, sizeof(count), MSG_WAITALL);

		if (n == 0 && want > 10)
			break;
		CHECK(n == sizeof(count), "after %u numbers: %zd (%s)", want, n, strerror(errno));
		CHECK(count == want, "number %u is %u", want, count);
	}
	mf_read_all(control[0], &c, 1, "control");
	mf_write_all(control[0], "k", 1, "control");
	conf_pass();
}
