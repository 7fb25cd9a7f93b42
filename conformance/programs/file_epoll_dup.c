// kind: notification
// state: epoll with members whose descriptor was closed, or is another file now, while a duplicate lives on
// users: root nobody
// mutate: eventpoll_tfd_entry
#include "memfile.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

static void add(int ep, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event e = { .events = events, .data.u64 = data };

	SYS(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

/* once gives the data of the only event that is pending, 0 for none. */
static uint64_t once(int ep)
{
	struct epoll_event e[8];
	int n = epoll_wait(ep, e, 8, 0);

	CHECK(n >= 0 && n <= 1, "%d events at once", n);
	return n ? e[0].data.u64 : 0;
}

int main(int argc, char **argv)
{
	int ep, a, b, c, d, twice, other;
	uint64_t v;

	conf_init(argc, argv);
	ep = SYS(epoll_create1(0));
	a = SYS(eventfd(0, EFD_NONBLOCK));	/* closed, alive as b */
	add(ep, a, EPOLLIN, 1);
	b = SYS(fcntl(a, F_DUPFD, 40));
	close(a);
	c = SYS(eventfd(0, EFD_NONBLOCK));	/* alive as d, its number is another file's */
	add(ep, c, EPOLLIN, 2);
	d = SYS(fcntl(c, F_DUPFD, 50));
	other = SYS(eventfd(0, EFD_NONBLOCK));
	SYS(dup2(other, c));
	twice = SYS(fcntl(other, F_DUPFD, 60));	/* one file, two members */
	add(ep, c, EPOLLIN, 3);
	add(ep, twice, EPOLLIN | EPOLLET, 4);
	SYS(epoll_ctl(ep, EPOLL_CTL_DEL, twice, NULL));
	conf_ready();
	conf_wait();
	SAME(once(ep), 0);
	SAME(eventfd_write(b, 1), 0);
	SAME(once(ep), 1);
	SAME(eventfd_read(b, &v), 0);
	SAME(once(ep), 0);
	SAME(eventfd_write(d, 1), 0);
	SAME(once(ep), 2);
	SAME(eventfd_read(d, &v), 0);
	SAME(eventfd_write(twice, 1), 0);
	SAME(once(ep), 3);
	SAME(eventfd_read(c, &v), 0);
	SAME(once(ep), 0);
	/* Closing the last descriptor of a file ends its membership. */
	close(b);
	close(d);
	OK(epoll_ctl(ep, EPOLL_CTL_DEL, c, NULL));
	CHECK(epoll_ctl(ep, EPOLL_CTL_DEL, c, NULL) < 0 && errno == ENOENT, "a member twice");
	conf_pass();
}
