// kind: pipes
// state: FIFOs with content: named, deleted, opened for reading and writing, shared with a child
// users: root nobody
// mutate: pipe_data_entry fifo_entry
// short: yes
#include "memfile.h"

static int gone_r, gone_w;

static void child(void)
{
	int fd = SYS(open("named", O_RDONLY));	/* its own description */

	close(gone_r);
	mf_mark("child-set");
	conf_wait();
	mf_expect_stream(fd, 3000, 1, 0, "the FIFO in the child");
	mf_await("parent-wrote");
	mf_expect_stream(fd, 100, 3, 0, "written by the parent");
	mf_write_stream(gone_w, 50, 2, 2000, "the deleted FIFO in the child");
}

int main(int argc, char **argv)
{
	char path[PATH_MAX], want[PATH_MAX + 32];
	struct stat st;
	int rw, wr, fl[2];
	pid_t pid;

	conf_init(argc, argv);
	SYS(mkfifo("named", 0640));
	rw = SYS(open("named", O_RDWR | O_NONBLOCK));
	wr = SYS(open("named", O_WRONLY | O_APPEND));
	SYS(fcntl(rw, F_SETPIPE_SZ, 131072));
	mf_write_stream(wr, 3000, 1, 0, "set-up");
	fl[0] = SYS(fcntl(rw, F_GETFL));
	fl[1] = SYS(fcntl(wr, F_GETFL));
	SYS(mkfifo("gone", 0600));
	gone_r = SYS(open("gone", O_RDONLY | O_NONBLOCK));
	gone_w = SYS(open("gone", O_WRONLY));
	mf_write_stream(gone_w, 2000, 2, 0, "set-up");
	SYS(unlink("gone"));
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	SAME(fcntl(rw, F_GETFL), fl[0]);
	SAME(fcntl(wr, F_GETFL), fl[1]);
	SAME(fcntl(wr, F_GETPIPE_SZ), 131072);
	mf_write_stream(rw, 100, 3, 0, "the FIFO");
	mf_mark("parent-wrote");
	conf_reap_ok(pid);
	mf_empty(rw, "the FIFO read by the child");
	mf_expect_stream(gone_r, 2050, 2, 0, "the deleted FIFO");
	mf_empty(gone_r, "the deleted FIFO");
	mf_link(gone_r, path, sizeof(path));
	snprintf(want, sizeof(want), "%s (deleted)", conf_path("gone"));
	CHECK(!strcmp(path, want), "the deleted FIFO is %s", path);
	CHECK(access("gone", F_OK) < 0, "the deleted FIFO is back");
	OK(stat("named", &st));
	SAME(st.st_mode, S_IFIFO | 0640);
	close(wr);
	wr = OK(open("named", O_WRONLY | O_NONBLOCK));
	mf_write_stream(wr, 10, 4, 0, "the FIFO, opened by its name");
	mf_expect_stream(rw, 10, 4, 0, "the FIFO");
	conf_pass();
}
