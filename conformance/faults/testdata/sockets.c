/*
 * A program of two processes that send and receive without a pause, over TCP to
 * each other and to a process outside (the test), and note every result that a
 * program running alone would not see.
 *
 *	sockets FILE PORT
 *
 * FILE is the page it shares with the test. Connections to PORT begin with a byte
 * that says what the other side does: 's' sends numbers, and reads numbers slowly,
 * 'q' sends 1000 bytes and reads nothing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct page {
	uint64_t child;
	uint64_t progress[2];   /* rounds of each process */
	uint64_t received[4];   /* numbers: by the parent and the child from each other, from the test; bytes peeked at */
	uint64_t errors;
	uint64_t what, error, connection; /* of the first */
};

static struct page *page;
static int self;

enum { SEND = 1, RECV, PEEK, VALUE, OPTION, ENDED };

static void bad(int what, int error, int connection)
{
	if (__atomic_fetch_add(&page->errors, 1, __ATOMIC_SEQ_CST) == 0) {
		page->what = what;
		page->error = error;
		page->connection = connection;
	}
}

static int must(int r, const char *what)
{
	if (r < 0) {
		perror(what);
		exit(1);
	}
	return r;
}

/* Numbers that go over a connection, in both directions. */
struct stream {
	int fd, name;
	uint32_t out, in;
	unsigned char part[4];
	int sent, got; /* bytes of the number under way */
};

static void give(struct stream *s)
{
	for (int i = 0; i < 64; i++) {
		int r = send(s->fd, (char *)&s->out + s->sent, 4 - s->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (r < 0) {
			if (errno != EAGAIN)
				bad(SEND, errno, s->name);
			return;
		}
		if ((s->sent += r) == 4) {
			s->sent = 0;
			s->out++;
		}
	}
}

static void take(struct stream *s, int most, uint64_t *count)
{
	for (int i = 0; i < most; i++) {
		int r = recv(s->fd, s->part + s->got, 4 - s->got, MSG_DONTWAIT);
		uint32_t v;

		if (r < 0) {
			if (errno != EAGAIN)
				bad(RECV, errno, s->name);
			return;
		}
		if (r == 0) {
			bad(ENDED, 0, s->name);
			return;
		}
		if ((s->got += r) < 4)
			continue;
		s->got = 0;
		memcpy(&v, s->part, 4);
		if (v != s->in)
			bad(VALUE, (int)(v - s->in), s->name);
		s->in = v + 1;
		(*count)++;
	}
}

static void same(int fd, int level, int option, int want, int name)
{
	int v = -1;
	socklen_t n = sizeof(v);

	if (getsockopt(fd, level, option, &v, &n) != 0)
		bad(OPTION, errno, name);
	else if (v != want)
		bad(OPTION, 1000 + v, name);
}

/* What waits there stays as it is. */
static void watch(int fd, int name)
{
	static char b[2000];
	int r = recv(fd, b, sizeof(b), MSG_PEEK | MSG_DONTWAIT);

	if (r != 1000)
		bad(PEEK, r < 0 ? errno : 1000 + r, name);
	page->received[3] += r > 0;
	same(fd, IPPROTO_TCP, TCP_REPAIR, 0, name);
	same(fd, SOL_SOCKET, SO_REUSEADDR, 1, name);
}

/* The first of several messages is the one that a peek shows. */
static void first(int fd, int name)
{
	char b[10];
	int r = recv(fd, b, sizeof(b), MSG_PEEK | MSG_DONTWAIT);

	if (r != 5 || memcmp(b, "first", 5) != 0)
		bad(PEEK, r < 0 ? errno : 2000 + r, name);
	same(fd, SOL_SOCKET, SO_PEEK_OFF, -1, name);
}

static int dial(int port, char kind)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"), one = 1, n;

	must(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), "SO_REUSEADDR");
	must(connect(fd, (void *)&a, sizeof(a)), "connect");
	if (kind)
		must(send(fd, &kind, 1, 0), "send");
	if (kind == 'q')
		do
			must(ioctl(fd, FIONREAD, &n), "FIONREAD");
		while (n < 1000);
	return fd;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	int f, l, port, pair[2], dgrams[2], udp, to;
	struct stream in = { .name = 1 }, out = { .name = 2 };

	if (argc != 3)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	f = must(open(argv[1], O_RDWR), argv[1]);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
	if (page == MAP_FAILED)
		return 1;
	close(f);
	port = atoi(argv[2]);

	l = must(socket(AF_INET, SOCK_STREAM, 0), "socket");
	must(bind(l, (void *)&a, sizeof(a)), "bind");
	must(listen(l, 1), "listen");
	must(getsockname(l, (void *)&a, &n), "getsockname");
	pair[0] = dial(ntohs(a.sin_port), 0);
	pair[1] = must(accept(l, NULL, NULL), "accept");
	close(l);

	must(socketpair(AF_UNIX, SOCK_DGRAM, 0, dgrams), "socketpair");
	udp = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
	to = must(socket(AF_INET, SOCK_DGRAM, 0), "socket");
	a.sin_port = 0;
	must(bind(udp, (void *)&a, sizeof(a)), "bind");
	must(getsockname(udp, (void *)&a, &n), "getsockname");
	must(connect(to, (void *)&a, sizeof(a)), "connect");
	for (int i = 0; i < 3; i++) {
		must(send(dgrams[1], i ? "other" : "first", 5, 0), "send");
		must(send(to, i ? "other" : "first", 5, 0), "send");
	}

	f = must(fork(), "fork");
	l = must(open("/dev/null", O_WRONLY), "/dev/null");
	if (f == 0) {
		dup2(l, 1); /* the pipe to the test is not to be held by what is saved */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		self = 1;
		in.fd = pair[1];
		for (;;) {
			give(&in);
			take(&in, 3, &page->received[1]); /* slowly: it is full most of the time */
			__atomic_add_fetch(&page->progress[1], 1, __ATOMIC_SEQ_CST);
			usleep(50);
		}
	}
	page->child = f;
	in.fd = pair[0];
	out.fd = dial(port, 's');
	int quiet = dial(port, 'q');
	/* As much as it takes, and what nobody reads stays in the queue. */
	while (send(quiet, argv, 8, MSG_DONTWAIT) > 0)
		;
	puts("ready");
	fflush(stdout);
	dup2(l, 1);
	for (;;) {
		give(&in);
		take(&in, 64, &page->received[0]);
		give(&out);
		take(&out, 64, &page->received[2]);
		for (int i = 0; i < 20; i++) {
			watch(quiet, 3);
			first(dgrams[0], 4);
			first(udp, 5);
			take(&in, 1, &page->received[0]);
			take(&out, 1, &page->received[2]);
		}
		__atomic_add_fetch(&page->progress[0], 1, __ATOMIC_SEQ_CST);
	}
}
