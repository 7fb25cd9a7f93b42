// kind: files
// state: deleted file open in two unrelated children through descriptions of their own
// users: root nobody
// mutate: ghost_file_entry
#include "memfile.h"

static void reader(void)
{
	int fd = SYS(open("gone", O_RDONLY));

	mf_mark("reader-set");
	conf_wait();
	mf_await("wrote");
	mf_expect_stream(fd, 100, 2, 0, "what the other child wrote");
	mf_expect_stream(fd, 100, 1, 100, "the rest");
}

static void writer(void)
{
	int fd = SYS(open("gone", O_WRONLY));

	mf_mark("writer-set");
	conf_wait();
	mf_write_stream(fd, 100, 2, 0, "deleted file");
	mf_mark("wrote");
}

int main(int argc, char **argv)
{
	pid_t a, b;

	conf_init(argc, argv);
	mf_file("gone", 1000, 1);
	a = mf_spawn(reader);
	b = mf_spawn(writer);
	mf_await("reader-set");
	mf_await("writer-set");
	SYS(unlink("gone"));
	conf_ready();
	conf_wait();
	conf_reap_ok(a);
	conf_reap_ok(b);
	CHECK(access("gone", F_OK) < 0, "the deleted file is back");
	conf_pass();
}
