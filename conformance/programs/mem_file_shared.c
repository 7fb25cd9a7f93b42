// kind: memory
// state: shared file mappings: written to, from an offset, read-only of a file opened for reading, of one opened for writing
// users: root nobody
// nocopies: both copies write to one file
// mutate: vma_entry.pgoff reg_file_entry.name
// short: yes
#include "memfile.h"

int main(int argc, char **argv)
{
	char *rw, *off, *ro, *can;
	char buf[64];
	int fd;

	conf_init(argc, argv);
	mf_file("f", 16 * PAGE, 1);
	fd = SYS(open("f", O_RDWR));
	rw = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	off = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 8 * PAGE));
	can = SYS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 15 * PAGE));
	close(fd);
	fd = SYS(open("f", O_RDONLY));
	ro = SYS(mmap(NULL, 16 * PAGE, PROT_READ, MAP_SHARED, fd, 0));
	close(fd);
	mf_fill(rw + PAGE, PAGE, 2);
	mf_fill(off, 10, 3);
	conf_ready();
	conf_wait();
	mf_check(rw, PAGE, 1, "page 0");
	mf_check(rw + PAGE, PAGE, 2, "page 1");
	mf_check(off, 10, 3, "page 8");
	mf_check_at(off + 10, 4 * PAGE - 10, 1, 8 * PAGE + 10, "pages 8-11");
	mf_check(ro + PAGE, PAGE, 2, "page 1 in the read-only mapping");

	/* Still the same file, in both directions. */
	mf_fill(off + PAGE, PAGE, 4);
	mf_check(ro + 9 * PAGE, PAGE, 4, "page 9, written in the other mapping");
	fd = OK(open("f", O_RDWR));
	mf_fill(buf, sizeof(buf), 5);
	CHECK(pwrite(fd, buf, sizeof(buf), 10 * PAGE) == sizeof(buf), "pwrite: %s", strerror(errno));
	mf_check(off + 2 * PAGE, sizeof(buf), 5, "page 10, written in the file");
	CHECK(pread(fd, buf, sizeof(buf), 9 * PAGE) == sizeof(buf), "pread: %s", strerror(errno));
	mf_check(buf, sizeof(buf), 4, "page 9 in the file");

	/* How the file was open decides what the mapping may become. */
	CHECK(mprotect(ro, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES,
	      "a mapping of a file opened for reading can be made writable");
	OK(mprotect(can, PAGE, PROT_READ | PROT_WRITE));
	mf_fill(can, PAGE, 6);
	mf_check(ro + 15 * PAGE, PAGE, 6, "page 15");
	conf_pass();
}
