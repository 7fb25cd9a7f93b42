// kind: files
// state: deleted file whose name another file has now
// users: root nobody
// mutate: ghost_file_entry
// moving: fds
#include "memfile.h"

int main(int argc, char **argv)
{
	struct stat a, b, now;
	int fd;

	conf_init(argc, argv);
	mf_file("name", 1000, 1);
	fd = SYS(open("name", O_RDWR));
	SYS(lseek(fd, 10, SEEK_SET));
	mf_file("name.new", 1000, 2);
	SYS(rename("name.new", "name"));
	SYS(stat("name", &b));
	conf_ready();
	conf_wait();
	OK(fstat(fd, &a));
	SAME(a.st_nlink, 0);
	OK(stat("name", &now));
	SAME(now.st_ino, b.st_ino);
	CHECK(a.st_ino != now.st_ino, "the old file has become the new one");
	mf_expect_stream(fd, 990, 1, 10, "the old file");
	fd = OK(open("name", O_RDONLY));
	mf_expect_stream(fd, 1000, 2, 0, "the new file");
	conf_pass();
}
