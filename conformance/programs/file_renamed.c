// kind: files
// state: files under a directory that was renamed, and a file whose name was given to another
// users: root nobody
// mutate: reg_file_entry.name
#include "memfile.h"

int main(int argc, char **argv)
{
	char path[PATH_MAX];
	struct stat a, b;
	int moved, fd, dir;

	conf_init(argc, argv);
	SYS(mkdir("old", 0755));
	SYS(mkdir("old/deep", 0755));
	mf_file("old/deep/f", 100, 1);
	moved = SYS(open("old/deep/f", O_RDWR));
	dir = SYS(open("old/deep", O_RDONLY | O_DIRECTORY));
	SYS(rename("old", "new"));
	mf_file("name", 100, 2);
	fd = SYS(open("name", O_RDWR));
	SYS(rename("name", "name.1"));	/* as log rotation does */
	mf_file("name", 100, 3);
	conf_ready();
	conf_wait();
	mf_link(moved, path, sizeof(path));
	CHECK(!strcmp(path, conf_path("new/deep/f")), "the moved file is %s", path);
	mf_expect_stream(moved, 100, 1, 0, "the moved file");
	mf_link(dir, path, sizeof(path));
	CHECK(!strcmp(path, conf_path("new/deep")), "the moved directory is %s", path);
	OK(openat(dir, "f", O_RDONLY));
	mf_expect_stream(fd, 100, 2, 0, "the rotated file");
	OK(fstat(fd, &a));
	OK(stat("name.1", &b));
	SAME(a.st_ino, b.st_ino);
	conf_pass();
}
