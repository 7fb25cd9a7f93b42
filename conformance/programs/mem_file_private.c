// kind: memory
// state: private file mappings, pages copied on write beside pages that still follow the file
// users: root nobody
// mutate: part:pages vma_entry.pgoff
// short: yes
#include "memfile.h"

int main(int argc, char **argv)
{
	char *p, *off, *ro, *hole, buf[32];
	int fd;

	conf_init(argc, argv);
	mf_file("f", 20 * PAGE, 1);
	fd = SYS(open("f", O_RDONLY));
	p = SYS(mmap(NULL, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	off = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 12 * PAGE));
	ro = SYS(mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, fd, 3 * PAGE));
	hole = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 16 * PAGE));
	close(fd);
	mf_fill(p + 2 * PAGE, PAGE, 2);		/* copied whole */
	p[5 * PAGE + 100] ^= 0xff;		/* copied, one byte changed */
	p[6 * PAGE] = p[6 * PAGE];		/* copied, nothing changed */
	*(volatile char *)(p + 6 * PAGE) ^= 0;
	mf_fill(off + PAGE, PAGE, 3);
	mf_fill(hole + PAGE, PAGE, 4);		/* copied, then forbidden */
	SYS(mprotect(hole + PAGE, PAGE, PROT_NONE));
	(void)*(volatile char *)(p + 8 * PAGE);	/* only read */
	conf_ready();
	conf_wait();
	/* Copied pages are the program's own, the others the file's. */
	fd = OK(open("f", O_RDWR));
	mf_fill(buf, sizeof(buf), 9);
	for (int page = 0; page < 20; page++)
		CHECK(pwrite(fd, buf, sizeof(buf), page * PAGE + 200) == sizeof(buf), "pwrite: %s", strerror(errno));
	for (int page = 0; page < 20; page++) {
		char *q = p + page * PAGE;

		switch (page) {
		case 2:
			mf_check(q, PAGE, 2, "copied page 2");
			break;
		case 5:
			CHECK((q[100] ^ (char)0xff) == (char)mf_byte(1, 5 * PAGE + 100), "the changed byte of page 5 is lost");
			mf_check_at(q + 101, PAGE - 101, 1, 5 * PAGE + 101, "copied page 5");
			break;
		case 6:
			mf_check_at(q, PAGE, 1, 6 * PAGE, "copied page 6");
			break;
		default:
			mf_check_at(q, 200, 1, page * PAGE, "page of the file");
			mf_check(q + 200, sizeof(buf), 9, "page of the file, written since");
		}
	}
	mf_check(off + 200, sizeof(buf), 9, "page 12, written since");
	mf_check(off + PAGE, PAGE, 3, "copied page 13");
	mf_check_at(ro, 200, 1, 3 * PAGE, "page 3, read-only");
	mf_check(ro + 200, sizeof(buf), 9, "page 3, read-only, written since");
	mf_faults(hole + PAGE, false, SIGSEGV, SEGV_ACCERR, "page 17");
	OK(mprotect(hole + PAGE, PAGE, PROT_READ));
	mf_check(hole + PAGE, PAGE, 4, "copied page 17");
	/* Writing to a page of the file copies it now. */
	mf_fill(p + 8 * PAGE, PAGE, 5);
	CHECK(pread(fd, buf, sizeof(buf), 8 * PAGE + 200) == sizeof(buf), "pread: %s", strerror(errno));
	mf_check(buf, sizeof(buf), 9, "page 8 of the file");
	conf_pass();
}
