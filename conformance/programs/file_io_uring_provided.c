// kind: io_uring
// state: io_uring that buffers were provided to
// users: root nobody
// refused: buffers were provided to it
#include "uring.h"

int main(int argc, char **argv)
{
	struct io_uring_sqe *s;
	struct uring u;
	char *mem;

	conf_init(argc, argv);
	ur_need(&u, 4, 0, 0);
	mem = SYS(malloc(4 * 64));
	s = ur_rw(&u, IORING_OP_PROVIDE_BUFFERS, 1, 4, mem, 64, 0);
	s->buf_group = 7;
	ur_submit(&u, 1);
	ur_expect(&u, 1, 0);
	conf_ready();
	conf_wait();
	s = ur_rw(&u, IORING_OP_REMOVE_BUFFERS, 2, 4, NULL, 0, 0);
	s->buf_group = 7;
	ur_submit(&u, 1);
	ur_expect(&u, 2, 4);
	conf_pass();
}
