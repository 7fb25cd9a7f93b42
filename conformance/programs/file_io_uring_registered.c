// kind: io_uring
// state: io_uring: files, buffers with tags, an eventfd and a thread's index registered; empty slots; limits of workers; a ring of a single thread that completes when that asks (DEFER_TASKRUN)
// users: root nobody
// mutate: fermata.uring.files fermata.uring.buffers fermata.uring.eventfd fermata.uring.threads fermata.uring.workers
// nocriu: does not know io_uring
// unprivileged: only root can read shared anonymous memory whole
#include "uring.h"
#include <sys/eventfd.h>

static struct uring r, one;
static volatile int *go;

static void *alone(void *arg)
{
	(void)arg;
	if (ur_setup(&one, 8, UR_SINGLE_ISSUER | UR_DEFER_TASKRUN, 0) < 0)
		conf_fail("set-up: a ring of one thread: %s", strerror(errno));
	ur_rounds(&one, 37);
	ur_put(&one, IORING_OP_NOP, 7);
	ur_submit(&one, 0);
	go[0] = 1;
	while (!go[1])
		conf_sleep_ms(1);
	ur_expect(&one, 7, 0);
	ur_rounds(&one, 50);
	SAME(*ur_word(&one, one.p.sq_off.head), 37 + 1 + 50);
	go[2] = 1;
	return NULL;
}

int main(int argc, char **argv)
{
	struct io_uring_rsrc_register rr = { .nr = 5, .flags = IORING_RSRC_REGISTER_SPARSE };
	struct io_uring_rsrc_update2 up = { .nr = 1 };
	struct io_uring_rsrc_update ring = { .offset = 3 };
	struct io_uring_sqe *s;
	struct iovec iov[2];
	uint64_t tag = 4242, n;
	unsigned limits[2] = { 3, 5 };
	int file, ev, fds[4], index;
	char *mem;
	pthread_t t;

	conf_init(argc, argv);
	go = conf_shared(4096);
	ur_need(&r, 8, 0, 0);
	file = SYS(open("file", O_RDWR | O_CREAT | O_TRUNC, 0600));
	SYS(write(file, "0123456789", 10));
	ev = SYS(eventfd(0, EFD_NONBLOCK));
	mem = SYS(mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	memset(mem, 'x', 8 * 4096);
	fds[0] = -1;
	fds[1] = file;
	fds[2] = -1;
	fds[3] = ev;
	SYS(ur_register(&r, IORING_REGISTER_FILES, fds, 4));
	/* Buffers: five places, of which 1 and 4 are taken; taking 4 away is told. */
	SYS(ur_register(&r, IORING_REGISTER_BUFFERS2, &rr, sizeof(rr)));
	iov[0] = (struct iovec){ mem, 4096 };
	iov[1] = (struct iovec){ mem + 4096 + 100, 3 * 4096 };
	up.offset = 1;
	up.data = (uintptr_t)&iov[0];
	SYS(ur_register(&r, IORING_REGISTER_BUFFERS_UPDATE, &up, sizeof(up)));
	up.offset = 4;
	up.data = (uintptr_t)&iov[1];
	up.tags = (uintptr_t)&tag;
	SYS(ur_register(&r, IORING_REGISTER_BUFFERS_UPDATE, &up, sizeof(up)));
	SYS(ur_register(&r, IORING_REGISTER_IOWQ_MAX_WORKERS, limits, 2));
	SYS(ur_register(&r, IORING_REGISTER_EVENTFD, &ev, 1));
	ring.data = r.fd;
	index = SYS(ur_register(&r, IORING_REGISTER_RING_FDS, &ring, 1));
	SAME(index, 1);
	ur_rounds(&r, 20);
	SYS(read(ev, &n, 8));
	PT(pthread_create(&t, NULL, alone, NULL));
	UNTIL(go[0], "the thread");
	conf_ready();
	conf_wait();
	CHECK(read(ev, &n, 8) < 0 && errno == EAGAIN, "the eventfd counts %llu", (unsigned long long)n);
	/* A registered file into a registered buffer. */
	s = ur_rw(&r, IORING_OP_READ_FIXED, 9, 1, mem + 4096 + 200, 5, 5);
	s->flags = IOSQE_FIXED_FILE;
	s->buf_index = 4;
	ur_submit(&r, 1);
	ur_expect(&r, 9, 5);
	CHECK(memcmp(mem + 4096 + 199, "x56789x", 7) == 0, "read %.7s", mem + 4096 + 199);
	SAME(OK(read(ev, &n, 8)), 8);
	SAME(n, 1);
	s = ur_rw(&r, IORING_OP_READ_FIXED, 10, 1, mem, 5, 0);
	s->flags = IOSQE_FIXED_FILE;
	s->buf_index = 1;
	ur_submit(&r, 1);
	ur_expect(&r, 10, 5);
	s = ur_rw(&r, IORING_OP_READ, 11, 2, mem, 1, 0);
	s->flags = IOSQE_FIXED_FILE;
	ur_submit(&r, 1);
	ur_expect(&r, 11, -EBADF);
	/* The fifth slot does not exist, the fourth is the eventfd. */
	s = ur_rw(&r, IORING_OP_WRITE, 12, 3, &(uint64_t){ 6 }, 8, 0);
	s->flags = IOSQE_FIXED_FILE;
	ur_submit(&r, 1);
	ur_expect(&r, 12, 8);
	iov[0] = (struct iovec){ NULL, 0 };
	up.offset = 4;
	up.data = (uintptr_t)&iov[0];
	up.tags = 0;
	OK(ur_register(&r, IORING_REGISTER_BUFFERS_UPDATE, &up, sizeof(up)));
	ur_expect(&r, 4242, 0);
	limits[0] = limits[1] = 0;
	OK(ur_register(&r, IORING_REGISTER_IOWQ_MAX_WORKERS, limits, 2));
	SAME(limits[0], 3);
	SAME(limits[1], 5);
	/* By the thread's index of the ring. */
	ur_put(&r, IORING_OP_NOP, 13);
	ur_show(&r);
	SAME(OK(ur_enter(3, 1, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING)), 1);
	ur_expect(&r, 13, 0);
	go[1] = 1;
	UNTIL(go[2], "the thread's ring");
	PT(pthread_join(t, NULL));
	conf_pass();
}
