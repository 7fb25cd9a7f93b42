// kind: memory
// state: private and executable mapping of a file that was replaced by another of the same name, as a package upgrade does
// users: root nobody
// mutate: part:pages
// moving: maps
// unprivileged: only root can reach it
#include "memfile.h"

int main(int argc, char **argv)
{
	struct stat st, now;
	char *p, buf[16];
	int fd;

	conf_init(argc, argv);
	mf_file("lib", 4 * PAGE, 1);
	fd = SYS(open("lib", O_RDONLY));
	p = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
	close(fd);
	mf_file("lib.new", 4 * PAGE, 2);
	SYS(rename("lib.new", "lib"));
	SYS(stat("lib", &st));
	conf_ready();
	conf_wait();
	mf_check(p, 4 * PAGE, 1, "the mapping of the old file");
	OK(stat("lib", &now));
	SAME(now.st_ino, st.st_ino);
	SAME(now.st_nlink, 1);
	fd = OK(open("lib", O_RDONLY));
	CHECK(read(fd, buf, sizeof(buf)) == sizeof(buf), "read: %s", strerror(errno));
	mf_check(buf, sizeof(buf), 2, "the new file");
	conf_pass();
}
