// kind: memory
// state: shared mapping of a file whose name was removed while another hard link is left
// users: root nobody
// nocopies: both copies write to one file
// mutate: remap_file_path_entry
// mutate: vma_entry.shmid
// unprivileged: only root can reach it
#include "memfile.h"

int main(int argc, char **argv)
{
	struct stat before, now;
	char *p, buf[64];
	int fd;

	conf_init(argc, argv);
	mf_file("first", 4 * PAGE, 1);
	fd = SYS(open("first", O_RDWR));
	p = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close(fd);
	SYS(link("first", "second"));
	SYS(unlink("first"));
	SYS(stat("second", &before));
	conf_ready();
	conf_wait();
	OK(stat("second", &now));
	SAME(now.st_ino, before.st_ino);
	SAME(now.st_nlink, 1);
	CHECK(access("first", F_OK) < 0, "the removed name is back");
	mf_check(p, 4 * PAGE, 1, "the mapping");
	mf_fill(p + PAGE, sizeof(buf), 2);
	fd = OK(open("second", O_RDONLY));
	CHECK(pread(fd, buf, sizeof(buf), PAGE) == sizeof(buf), "pread: %s", strerror(errno));
	mf_check(buf, sizeof(buf), 2, "what was written to the mapping, in the other link");
	conf_pass();
}
