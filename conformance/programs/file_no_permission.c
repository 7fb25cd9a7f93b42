// kind: files
// state: files open that their owner could not open any more: mode 0, directory closed to everyone, read-only open for writing
// users: root nobody
// mutate: reg_file_entry.pos
// unprivileged: its path cannot be examined
#include "memfile.h"

int main(int argc, char **argv)
{
	int closed, inside, ro;

	conf_init(argc, argv);
	mf_file("closed", 100, 1);
	SYS(mkdir("dir", 0700));
	mf_file("dir/inside", 100, 2);
	mf_file("ro", 100, 3);
	closed = SYS(open("closed", O_RDWR));
	inside = SYS(open("dir/inside", O_RDWR));
	ro = SYS(open("ro", O_WRONLY));
	SYS(lseek(closed, 10, SEEK_SET));
	SYS(fchmod(closed, 0));
	SYS(chmod("dir", 0));
	SYS(fchmod(ro, 0444));
	conf_ready();
	conf_wait();
	mf_expect_stream(closed, 90, 1, 10, "the file of mode 0");
	mf_expect_stream(inside, 100, 2, 0, "the file in the closed directory");
	SAME(write(ro, "x", 1), 1);
	OK(chmod("dir", 0700));
	conf_pass();
}
