// kind: io_uring
// state: io_uring: completions that nobody has taken, entries that were not submitted, counts that went round the rings; a ring shared with a child that has it mapped; a ring with large entries; one asleep in waiting
// users: root nobody
// mutate: fermata.uring.cqes fermata.uring.sqes fermata.uring.sq_head fermata.uring.cq_head=5 fermata.uring
// nocriu: does not know io_uring
// unprivileged: the kernel's memory cannot be read here
#include "uring.h"

static struct uring a, big, w;
static char buf[4096];
static int file;

static void *sleeper(void *arg)
{
	(void)arg;
	SAME(OK(ur_enter(w.fd, 0, 1, IORING_ENTER_GETEVENTS)), 0);
	ur_expect(&w, 77, 0);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;
	pid_t pid, tid;

	conf_init(argc, argv);
	ur_need(&a, 8, 0, 0);
	file = SYS(open("file", O_RDWR | O_CREAT | O_TRUNC, 0600));
	SYS(write(file, "0123456789", 10));
	if (ur_setup(&big, 4, IORING_SETUP_SQE128 | IORING_SETUP_CQE32, 0) < 0)
		conf_fail("set-up: large entries: %s", strerror(errno));
	ur_rounds(&a, 1013);
	ur_rounds(&big, 21);
	for (int i = 0; i < 5; i++) {
		ur_rw(&a, IORING_OP_READ, 500 + i, file, buf, 3 + i, 0);
		ur_submit(&a, 0);
	}
	UNTIL(ur_ready(&a) == 5, "five completions");
	ur_rw(&a, IORING_OP_READ, 601, file, buf, 4, 4);
	ur_put(&a, IORING_OP_NOP, 602);
	ur_show(&a); /* and not submitted */
	ur_put(&big, IORING_OP_NOP, 88);
	ur_submit(&big, 0);
	ur_need(&w, 2, 0, 0);
	PT(pthread_create(&t, NULL, sleeper, NULL));
	tid = getpid() + 1;
	UNTIL(conf_in_syscall(tid, SYS_io_uring_enter), "the thread asleep");
	pid = SYS(fork());
	if (pid == 0) {
		conf_wait();
		/* What it submits, the parent sees. */
		for (int i = 0; i < 5; i++)
			ur_expect(&a, 500 + i, 3 + i);
		_exit(0);
	}
	conf_ready();
	conf_wait();
	conf_reap_ok(pid);
	SAME(ur_ready(&a), 0);
	memset(buf, 0, sizeof(buf));
	SAME(OK(ur_enter(a.fd, 2, 2, IORING_ENTER_GETEVENTS)), 2);
	if (ur_ready(&a) == 2) {
		struct completion x = ur_take(&a), y = ur_take(&a);

		CHECK(x.user_data + y.user_data == 601 + 602 && x.res + y.res == 4, "completions %llu with %d, %llu with %d",
		      (unsigned long long)x.user_data, x.res, (unsigned long long)y.user_data, y.res);
	}
	CHECK(memcmp(buf, "4567", 4) == 0, "read %.4s", buf);
	ur_rounds(&a, 100);
	SAME(*ur_word(&a, a.p.sq_off.head), 1013 + 5 + 2 + 100);
	SAME(*ur_word(&a, a.p.cq_off.tail), 1013 + 5 + 2 + 100);
	ur_expect(&big, 88, 0);
	ur_rounds(&big, 100);
	ur_put(&w, IORING_OP_NOP, 77);
	ur_submit(&w, 0);
	PT(pthread_join(t, NULL));
	conf_pass();
}
