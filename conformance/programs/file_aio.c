// kind: files
// state: contexts of Linux AIO: completed requests that nobody has taken yet, an empty one, one whose ring went round; requests go on in all of them, a child has the rings but not the contexts
// users: root nobody
// mutate: fermata.mm_extra.aio
#include "conformance.h"
#include <linux/aio_abi.h>

#define N 64

static char buf[4096];
static int fd;

/* n reads, each with a number of its own. */
static void submit(aio_context_t ctx, int n, int first)
{
	for (int i = 0; i < n; i++) {
		struct iocb cb = {
			.aio_data = first + i, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd,
			.aio_buf = (unsigned long)buf, .aio_nbytes = 10 + i % 50, .aio_offset = i,
		};
		struct iocb *p = &cb;

		SAME(OK(syscall(SYS_io_submit, ctx, 1, &p)), 1);
	}
}

static void take(aio_context_t ctx, int n, int first)
{
	struct timespec soon = { 5, 0 };

	for (int i = 0; i < n; i++) {
		struct io_event e;

		SAME(OK(syscall(SYS_io_getevents, ctx, 1, 1, &e, &soon)), 1);
		SAME(e.data, first + i);
		CHECK(e.res >= 10 && e.res < 60, "read %lld bytes", (long long)e.res);
	}
}

static void none(aio_context_t ctx)
{
	struct timespec now = { 0, 0 };
	struct io_event e;

	SAME(OK(syscall(SYS_io_getevents, ctx, 0, 1, &e, &now)), 0);
}

int main(int argc, char **argv)
{
	aio_context_t a = 0, b = 0, c = 0;
	pid_t pid;
	int st;

	conf_init(argc, argv);
	fd = SYS(open("file", O_RDWR | O_CREAT, 0600));
	SYS(write(fd, buf, sizeof(buf)));
	if (syscall(SYS_io_setup, N, &a) < 0 && errno == ENOSYS)
		conf_skip("no Linux AIO");
	SYS(syscall(SYS_io_setup, 1000, &b));
	SYS(syscall(SYS_io_setup, N, &c));
	submit(a, 10, 100);
	take(a, 3, 100);
	for (int i = 0; i < 50; i++) { /* round and round */
		submit(c, 20, 20 * i);
		take(c, 20, 20 * i);
	}
	submit(c, 9, 7000);
	pid = SYS(fork());
	if (pid == 0) {
		conf_wait();
		CHECK(syscall(SYS_io_getevents, a, 0, 0, NULL, NULL) < 0 && errno == EINVAL, "the child has the context");
		_exit(4);
	}
	conf_ready();
	conf_wait();
	take(a, 7, 103);
	none(a);
	none(b);
	take(c, 9, 7000);
	none(c);
	for (int i = 0; i < 100; i++) {
		submit(a, 20, i);
		submit(b, 100, i);
		submit(c, 30, i);
		take(a, 20, i);
		take(b, 100, i);
		take(c, 30, i);
	}
	OK(syscall(SYS_io_destroy, a));
	OK(syscall(SYS_io_destroy, b));
	OK(syscall(SYS_io_destroy, c));
	SAME(OK(waitpid(pid, &st, 0)), pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 4, "the child ended with %#x", st);
	conf_pass();
}
