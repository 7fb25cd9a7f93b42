// kind: io_uring
// state: io_uring with a thread of the kernel's (SQPOLL): counts, a completion that nobody has taken; what it opens, it opens as the program's user
// users: root nobody
// moving: tasks
// mutate: fermata.uring.cqes fermata.uring.flags=0
// nocriu: does not know io_uring
// unprivileged: the kernel's memory cannot be read here
#include "uring.h"

int main(int argc, char **argv)
{
	static const char *name = "/etc/shadow";
	struct uring u;
	struct completion c;
	struct io_uring_sqe *s;
	int mine;

	conf_init(argc, argv);
	ur_need(&u, 4, IORING_SETUP_SQPOLL, 20);
	ur_rounds(&u, 111);
	ur_put(&u, IORING_OP_NOP, 5);
	ur_submit(&u, 1);
	conf_ready();
	conf_wait();
	ur_expect(&u, 5, 0);
	ur_rounds(&u, 30);
	SAME(*ur_word(&u, u.p.sq_off.head), 111 + 1 + 30);
	/* Nobody but the thread submits. */
	conf_sleep_ms(60);
	CHECK(*ur_word(&u, u.p.sq_off.flags) & IORING_SQ_NEED_WAKEUP, "the thread does not go to sleep");
	s = ur_put(&u, IORING_OP_OPENAT, 9);
	s->fd = AT_FDCWD;
	s->addr = (uintptr_t)name;
	s->open_flags = O_RDONLY;
	ur_submit(&u, 1);
	c = ur_take(&u);
	mine = open(name, O_RDONLY);
	CHECK(c.user_data == 9 && (mine < 0) == (c.res < 0), "the thread opens %s: %d, the program %d", name, c.res, mine);
	CHECK(mine >= 0 || c.res == -errno, "the thread opens %s: %d, the program: %s", name, c.res, strerror(errno));
	conf_pass();
}
