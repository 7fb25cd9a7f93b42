// kind: tcp
// state: connections that their clients have and the listener has not: it waits for their first data (TCP_DEFER_ACCEPT), or its queue was full when that came
// users: root nobody
// mutate: fermata.sock_extra.arrived fermata.sock_extra.pending
// unprivileged: the kernel's memory cannot be read here
#include "sockaddr.h"

static int deferring(int backlog)
{
	int l = in_listener(AF_INET, backlog);

	opt_set(l, IPPROTO_TCP, TCP_DEFER_ACCEPT, 60);
	return l;
}

static int client(int l)
{
	return in_connected(AF_INET, SOCK_STREAM, in_port(l, false));
}

static void served(int c, int peer, size_t n, int seed, const char *what)
{
	mf_expect_stream(c, n, seed, 0, what);
	mf_write_stream(c, 50, seed + 1, 0, what);
	mf_expect_stream(peer, 50, seed + 1, 0, what);
	close(c);
}

static void accepted(int l, int peer, size_t n, int seed, const char *what)
{
	int c = OK(accept(l, NULL, NULL));

	CHECK(in_port(c, true) == in_port(peer, false), "%s: another connection came first", what);
	served(c, peer, n, seed, what);
}

int main(int argc, char **argv)
{
	int l, first, sent, last, f, one, two, c;

	conf_init(argc, argv);
	l = deferring(10);
	first = client(l);
	sent = client(l);
	last = client(l);
	mf_write_stream(sent, 3000, 1, 0, "set-up");
	f = deferring(0);
	one = client(f);
	two = client(f);
	mf_write_stream(one, 100, 3, 0, "set-up");
	mf_write_stream(two, 2000, 5, 0, "set-up");
	conf_sleep_ms(50);
	conf_ready();
	conf_wait();
	mf_write_stream(first, 10, 7, 0, "the first");
	accepted(l, sent, 3000, 1, "what was sent before");
	accepted(l, first, 10, 7, "the first");
	mf_write_stream(last, 20, 9, 0, "the last");
	accepted(l, last, 20, 9, "the last");
	/* One of them is in the queue, the other found no room. */
	for (int i = 0; i < 2; i++) {
		c = OK(accept(f, NULL, NULL));
		if (in_port(c, true) == in_port(one, false))
			served(c, one, 100, 3, "one of two");
		else
			served(c, two, 2000, 5, "the other of two");
	}
	conf_pass();
}
