// kind: notification
// state: epoll: level, edge and one-shot (armed and disarmed), data, nested, inherited by a child
// users: root nobody
// mutate: eventpoll_tfd_entry.data eventpoll_tfd_entry.events eventpoll_tfd_entry
// short: yes
#include "memfile.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int ep, ev[6];

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = { .events = events, .data.u64 = data };

	SYS(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

static void ring(int fd)
{
	SAME(eventfd_write(fd, 1), 0);
}

/* expect collects events until all of the data values in want came. */
static void expect(int ep, const uint64_t *want, int n, const char *what)
{
	struct epoll_event e[16];
	int k = epoll_wait(ep, e, 16, 1000);

	CHECK(k == n, "%s: %d events, not %d", what, k, n);
	for (int i = 0; i < n; i++) {
		bool found = false;

		for (int j = 0; j < k; j++)
			found |= e[j].data.u64 == want[i];
		CHECK(found, "%s: no event with data %lx", what, want[i]);
	}
}

static void child(void)
{
	struct epoll_event e;

	mf_mark("child-set");
	conf_wait();
	mf_await("parent-done");
	ring(ev[4]);
	SAME(epoll_wait(ep, &e, 1, 1000), 1);
	SAME(e.data.u64, 0xdeadbeef00000004);
}

int main(int argc, char **argv)
{
	struct epoll_event e;
	int inner, outer;
	pid_t pid;

	conf_init(argc, argv);
	ep = SYS(epoll_create1(EPOLL_CLOEXEC));
	for (int i = 0; i < 6; i++)
		ev[i] = SYS(eventfd(0, EFD_NONBLOCK));
	add(ep, ev[0], EPOLLIN, 0x1122334455667788);
	add(ep, ev[1], EPOLLIN | EPOLLET, ~0ULL);
	add(ep, ev[2], EPOLLIN | EPOLLONESHOT, 2);
	add(ep, ev[3], EPOLLIN | EPOLLONESHOT | EPOLLRDHUP, 3);
	add(ep, ev[4], EPOLLIN | EPOLLET, 0xdeadbeef00000004);
	ring(ev[3]);		/* used up: disarmed */
	SAME(epoll_wait(ep, &e, 1, 0), 1);
	SAME(e.data.u64, 3);
	ring(ev[0]);		/* level: there, and remains */
	SAME(epoll_wait(ep, &e, 1, 0), 1);
	ring(ev[1]);		/* edge: there, not yet seen */
	inner = SYS(epoll_create1(0));
	outer = SYS(epoll_create1(0));
	add(inner, ev[5], EPOLLIN, 55);
	add(outer, inner, EPOLLIN, 66);
	add(outer, ev[5], EPOLLIN | EPOLLEXCLUSIVE, 77);
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	SAME(fcntl(ep, F_GETFD), FD_CLOEXEC);
	expect(ep, (uint64_t[]){ 0x1122334455667788, ~0ULL }, 2, "what was pending");
	expect(ep, (uint64_t[]){ 0x1122334455667788 }, 1, "the level, again");
	ring(ev[2]);
	expect(ep, (uint64_t[]){ 0x1122334455667788, 2 }, 2, "the one-shot");
	ring(ev[2]);
	ring(ev[3]);
	expect(ep, (uint64_t[]){ 0x1122334455667788 }, 1, "one-shots that are used up");
	e.events = EPOLLIN | EPOLLONESHOT;
	e.data.u64 = 33;
	OK(epoll_ctl(ep, EPOLL_CTL_MOD, ev[3], &e));
	expect(ep, (uint64_t[]){ 0x1122334455667788, 33 }, 2, "a one-shot armed again");
	CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, ev[4], &e) < 0 && errno == EEXIST, "a member can be added again");
	expect(outer, NULL, 0, "nested, idle");
	ring(ev[5]);
	expect(outer, (uint64_t[]){ 66, 77 }, 2, "nested");
	expect(inner, (uint64_t[]){ 55 }, 1, "inner");
	OK(epoll_ctl(ep, EPOLL_CTL_DEL, ev[0], NULL));
	mf_mark("parent-done");
	conf_reap_ok(pid);
	conf_pass();
}
