// kind: io_uring
// state: io_uring with requests under way that do not end by themselves: waiting for a pipe, and for a time
// users: root nobody
// refused: 2 requests are under way
#include "uring.h"
#include <linux/time_types.h>
#include <poll.h>

int main(int argc, char **argv)
{
	struct __kernel_timespec never = { .tv_sec = 3600 };
	struct io_uring_sqe *s;
	struct uring u;
	int p[2];

	conf_init(argc, argv);
	ur_need(&u, 4, 0, 0);
	SYS(pipe(p));
	ur_rounds(&u, 10);
	s = ur_put(&u, IORING_OP_POLL_ADD, 1);
	s->fd = p[0];
	s->poll32_events = POLLIN;
	ur_rw(&u, IORING_OP_TIMEOUT, 2, -1, &never, 1, 0);
	ur_submit(&u, 0);
	conf_ready();
	conf_wait();
	SAME(ur_ready(&u), 0);
	OK(write(p[1], "x", 1));
	ur_expect(&u, 1, POLLIN);
	conf_pass();
}
