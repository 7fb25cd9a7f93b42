// kind: unix sockets
// state: stream pair full in both directions, one asleep in writing to it, one in reading from another
// users: root nobody
// mutate: sk_packet_entry
// nouser: it looks itself up in /proc, which shows other pids
#include "memfile.h"

static int full[2], empty[2];
static size_t forth, back;

static void writer(void)
{
	close(full[1]);
	close(empty[0]);
	close(empty[1]);
	mf_write_stream(full[0], 1000, 1, forth, "the writer");
	OK(shutdown(full[0], SHUT_WR));
	mf_expect_stream(full[0], back, 2, 0, "the writer's queue");
	mf_eof(full[0], "the writer's queue");
}

static void reader(void)
{
	close(empty[1]);
	close(full[0]);
	close(full[1]);
	mf_expect_stream(empty[0], 100, 3, 0, "the reader");
	mf_eof(empty[0], "the reader");
}

int main(int argc, char **argv)
{
	pid_t w, r;

	conf_init(argc, argv);
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, full));
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, empty));
	mf_set_nonblock(full[0], true);
	mf_set_nonblock(full[1], true);
	forth = mf_flood(full[0], 1, 0);
	back = mf_flood(full[1], 2, 0);
	mf_set_nonblock(full[0], false);
	mf_set_nonblock(full[1], false);
	w = mf_spawn(writer);
	r = mf_spawn(reader);
	close(full[0]);
	close(empty[0]);
	UNTIL(conf_in_syscall(w, SYS_write), "the writer to sleep");
	UNTIL(conf_in_syscall(r, SYS_read), "the reader to sleep");
	conf_ready();
	conf_wait();
	UNTIL(conf_in_syscall(r, SYS_read), "the reader to sleep");
	mf_expect_stream(full[1], forth + 1000, 1, 0, "what was queued and written");
	mf_eof(full[1], "what was queued and written");
	mf_write_stream(empty[1], 100, 3, 0, "the empty pair");
	close(empty[1]);
	close(full[1]);
	conf_reap_ok(w);
	conf_reap_ok(r);
	conf_pass();
}
