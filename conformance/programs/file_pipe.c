// kind: pipes
// state: pipe with unread content, its size set by F_SETPIPE_SZ, non-blocking at one end, partly read
// users: root nobody
// mutate: pipe_data_entry pipe_data_entry.size pipe_entry.flags
// short: yes
#include "memfile.h"

int main(int argc, char **argv)
{
	int p[2], big[2], empty[2], dup_of;

	conf_init(argc, argv);
	SYS(pipe2(p, O_CLOEXEC));
	mf_set_nonblock(p[1], true);
	mf_write_stream(p[1], 10000, 1, 0, "set-up");
	mf_expect_stream(p[0], 1234, 1, 0, "set-up");
	SYS(pipe(big));
	SYS(fcntl(big[1], F_SETPIPE_SZ, 1 << 20));
	mf_write_stream(big[1], 900000, 2, 0, "set-up");
	SYS(pipe(empty));
	SYS(fcntl(empty[0], F_SETPIPE_SZ, 4096));
	mf_set_nonblock(empty[0], true);
	dup_of = SYS(fcntl(p[0], F_DUPFD, 50));
	conf_ready();
	conf_wait();
	SAME(fcntl(p[0], F_GETFD), FD_CLOEXEC);
	SAME(fcntl(dup_of, F_GETFD), 0);
	SAME(fcntl(p[0], F_GETFL), O_RDONLY);
	SAME(fcntl(p[1], F_GETFL), O_WRONLY | O_NONBLOCK);
	SAME(fcntl(p[0], F_GETPIPE_SZ), 65536);
	SAME(fcntl(big[0], F_GETPIPE_SZ), 1 << 20);
	SAME(fcntl(empty[1], F_GETPIPE_SZ), 4096);
	mf_write_stream(p[1], 100, 1, 10000, "after what is in the pipe");
	mf_expect_stream(dup_of, 10100 - 1234, 1, 1234, "pipe");
	mf_expect_stream(big[0], 900000, 2, 0, "big pipe");
	mf_set_nonblock(big[0], true);
	mf_empty(big[0], "big pipe");
	mf_empty(empty[0], "empty pipe");
	mf_write_stream(empty[1], 4096, 3, 0, "small pipe");
	mf_expect_stream(empty[0], 4096, 3, 0, "small pipe");
	close(empty[1]);
	mf_eof(empty[0], "pipe whose writer was closed");
	conf_pass();
}
