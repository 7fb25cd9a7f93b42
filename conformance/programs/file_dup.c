// kind: files
// state: descriptors that share an offset (dup) and descriptors of the same file that don't
// users: root nobody
// mutate: fdinfo_entry.id
// short: yes
#include "memfile.h"

int main(int argc, char **argv)
{
	int a, b, c, d, e;

	conf_init(argc, argv);
	mf_file("f", 1000, 1);
	a = SYS(open("f", O_RDWR));
	b = SYS(open("f", O_RDWR));	/* of its own, though all the same */
	c = SYS(dup(a));
	d = SYS(fcntl(b, F_DUPFD_CLOEXEC, 77));
	e = SYS(dup3(a, 60, O_CLOEXEC));
	SYS(lseek(a, 10, SEEK_SET));
	SYS(lseek(b, 10, SEEK_SET));
	conf_ready();
	conf_wait();
	SAME(fcntl(c, F_GETFD), 0);
	SAME(fcntl(d, F_GETFD), FD_CLOEXEC);
	SAME(fcntl(e, F_GETFD), FD_CLOEXEC);
	SAME(d, 77);
	CHECK(mf_same_file(getpid(), a, getpid(), c), "dup: not one file any more");
	CHECK(mf_same_file(getpid(), a, getpid(), e), "dup3: not one file any more");
	CHECK(mf_same_file(getpid(), b, getpid(), d), "F_DUPFD: not one file any more");
	CHECK(!mf_same_file(getpid(), a, getpid(), b), "two open files have become one");
	OK(lseek(a, 500, SEEK_SET));
	SAME(lseek(c, 0, SEEK_CUR), 500);
	SAME(lseek(e, 0, SEEK_CUR), 500);
	SAME(lseek(b, 0, SEEK_CUR), 10);
	OK(lseek(d, 7, SEEK_SET));
	SAME(lseek(b, 0, SEEK_CUR), 7);
	SAME(lseek(a, 0, SEEK_CUR), 500);
	OK(fcntl(e, F_SETFL, O_APPEND));
	SAME(fcntl(a, F_GETFL) & O_APPEND, O_APPEND);
	SAME(fcntl(b, F_GETFL) & O_APPEND, 0);
	conf_pass();
}
