// kind: files
// state: open files inherited by children: offset shared, also where the parent has closed its own
// users: root nobody
// mutate: fdinfo_entry.id
// short: yes
#include "memfile.h"

static int shared, first_only, moved;

static void brother(void)
{
	mf_mark("brother-set");
	conf_wait();
	mf_await("sister-read");
	SAME(lseek(first_only, 0, SEEK_CUR), 110);
	mf_expect_stream(first_only, 10, 1, 110, "the file that only the children have");
	mf_mark("brother-read");
}

static void sister(void)
{
	/* The same file under another number. */
	moved = SYS(fcntl(first_only, F_DUPFD, 200));
	close(first_only);
	mf_mark("sister-set");
	conf_wait();
	mf_await("parent-read");
	SAME(lseek(shared, 0, SEEK_CUR), 60);
	mf_expect_stream(moved, 10, 1, 100, "the file that only the children have");
	mf_mark("sister-read");
	mf_await("brother-read");
	SAME(lseek(moved, 0, SEEK_CUR), 120);
	mf_expect_stream(shared, 40, 1, 60, "the file of all");
	mf_mark("sister-done");
}

int main(int argc, char **argv)
{
	pid_t a, b;

	conf_init(argc, argv);
	mf_file("f", 1000, 1);
	shared = SYS(open("f", O_RDONLY));
	first_only = SYS(open("f", O_RDWR));
	SYS(lseek(shared, 50, SEEK_SET));
	SYS(lseek(first_only, 100, SEEK_SET));
	a = mf_spawn(brother);
	b = mf_spawn(sister);
	close(first_only);
	mf_await("brother-set");
	mf_await("sister-set");
	conf_ready();
	conf_wait();
	CHECK(fcntl(first_only, F_GETFD) < 0 && errno == EBADF, "a closed descriptor is open");
	CHECK(mf_same_file(a, shared, getpid(), shared), "the child's file is another");
	CHECK(mf_same_file(a, first_only, b, 200), "the children's file is not one");
	mf_expect_stream(shared, 10, 1, 50, "the file of all");
	mf_mark("parent-read");
	mf_await("sister-done");
	SAME(lseek(shared, 0, SEEK_CUR), 100);
	conf_reap_ok(a);
	conf_reap_ok(b);
	conf_pass();
}
