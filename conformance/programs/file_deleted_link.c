// kind: files
// state: file whose name was removed while another hard link is left, in another directory
// users: root nobody
// mutate: remap_file_path_entry reg_file_entry.pos
#include "memfile.h"

int main(int argc, char **argv)
{
	struct stat st, now;
	char buf[20];
	int fd, other;

	conf_init(argc, argv);
	mf_file("first", 1000, 1);
	SYS(mkdir("sub", 0755));
	fd = SYS(open("first", O_RDWR));
	SYS(lseek(fd, 30, SEEK_SET));
	SYS(link("first", "sub/second"));
	SYS(unlink("first"));
	SYS(fstat(fd, &st));
	conf_ready();
	conf_wait();
	OK(fstat(fd, &now));
	SAME(now.st_ino, st.st_ino);
	SAME(now.st_nlink, 1);
	CHECK(access("first", F_OK) < 0, "the removed name is back");
	mf_expect_stream(fd, 70, 1, 30, "the file");
	mf_fill(buf, sizeof(buf), 2);
	mf_write_all(fd, buf, sizeof(buf), "the file");
	other = OK(open("sub/second", O_RDONLY));
	SAME(pread(other, buf, sizeof(buf), 100), sizeof(buf));
	mf_check(buf, sizeof(buf), 2, "what was written, seen at the other name");
	OK(unlink("sub/second"));
	OK(fstat(fd, &now));
	SAME(now.st_nlink, 0);
	conf_pass();
}
