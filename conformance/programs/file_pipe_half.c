// kind: pipes
// state: pipes with one end closed: the reader's with content left, the reader's without, the writer's; both directions of one pipe open in one descriptor
// users: root nobody
// mutate: pipe_data_entry
// nocriu: loses the content of a pipe without a reader, and pipes belong to root
#include "memfile.h"

int main(int argc, char **argv)
{
	int a[2], b[2], c[2], d[2], rw;
	char path[64];

	conf_init(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	SYS(pipe(a));
	mf_write_stream(a[1], 5000, 1, 0, "set-up");
	close(a[1]);
	SYS(pipe(b));
	close(b[1]);
	SYS(pipe(c));
	mf_write_stream(c[1], 100, 2, 0, "set-up");
	close(c[0]);
	SYS(pipe(d));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", d[0]);
	rw = SYS(open(path, O_RDWR));
	mf_write_stream(rw, 10, 3, 0, "set-up");
	close(d[0]);
	conf_ready();
	conf_wait();
	SAME(mf_poll(a[0], POLLIN), POLLIN | POLLHUP);
	mf_expect_stream(a[0], 5000, 1, 0, "pipe without a writer");
	mf_eof(a[0], "pipe without a writer");
	mf_eof(b[0], "empty pipe without a writer");
	SAME(mf_poll(b[0], POLLIN), POLLHUP);
	CHECK(write(c[1], "x", 1) < 0 && errno == EPIPE, "a pipe without a reader can be written");
	SAME(mf_poll(c[1], POLLOUT) & POLLERR, POLLERR);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", c[1]);
	c[0] = OK(open(path, O_RDONLY | O_NONBLOCK));	/* what was in it is there still */
	mf_expect_stream(c[0], 100, 2, 0, "pipe whose reader was closed");
	mf_write_stream(d[1], 10, 3, 10, "the writing end");
	mf_expect_stream(rw, 20, 3, 0, "descriptor with both directions");
	SAME(fcntl(rw, F_GETFL) & O_ACCMODE, O_RDWR);
	conf_pass();
}
