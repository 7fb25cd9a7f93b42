// kind: pipes
// state: pipes between brothers, of which the parent has no end; one reader and one writer asleep in them
// users: root nobody
// mutate: pipe_entry.pipe_id pipe_data_entry
// short: yes
// nouser: it looks itself up in /proc, which shows other pids
#include "memfile.h"

static int data[2], ack[2];

/* Sleeps in write: the pipe is full. */
static void writer(void)
{
	close(data[0]);
	close(ack[1]);
	mf_write_stream(data[1], 300000, 1, 0, "the writer");
	close(data[1]);
	mf_expect_stream(ack[0], 3, 2, 0, "the answer");
	mf_eof(ack[0], "the answer");
}

/* Sleeps in read. */
static void sleeper(void)
{
	char c;

	close(data[0]);
	close(data[1]);
	close(ack[1]);
	SAME(read(ack[0], &c, 1), 1);
	conf_fail("the sleeper got something to read");
}

static void reader(void)
{
	close(data[1]);
	close(ack[0]);
	conf_wait();
	mf_expect_stream(data[0], 300000, 1, 0, "the reader");
	mf_eof(data[0], "the reader");
	mf_await("sleeper-gone");
	mf_write_stream(ack[1], 3, 2, 0, "the answer");
}

int main(int argc, char **argv)
{
	pid_t w, r, s;
	int st;

	conf_init(argc, argv);
	SYS(pipe(data));
	SYS(pipe(ack));
	w = mf_spawn(writer);
	s = mf_spawn(sleeper);
	r = mf_spawn(reader);
	close(data[0]);
	close(data[1]);
	close(ack[0]);
	close(ack[1]);
	UNTIL(conf_in_syscall(w, SYS_write), "the writer to fill the pipe");
	UNTIL(conf_in_syscall(s, SYS_read), "the sleeper to sleep");
	UNTIL(conf_in_syscall(r, SYS_nanosleep), "the reader to wait");
	conf_ready();
	conf_wait();
	UNTIL(conf_in_syscall(s, SYS_read), "the sleeper to sleep in read");
	OK(kill(s, SIGKILL));
	SAME(waitpid(s, &st, 0), s);
	CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL, "the sleeper ended with status 0x%x", st);
	mf_mark("sleeper-gone");
	conf_reap_ok(r);
	conf_reap_ok(w);
	conf_pass();
}
