// kind: memory
// state: guard pages: PROT_NONE between writable pages, holes; SIGSEGV with the right code at the right address
// users: root nobody
// mutate: vma_entry.prot=3
// short: yes
#include "memfile.h"

int main(int argc, char **argv)
{
	char *p;

	conf_init(argc, argv);
	/* RW, guard, RW, hole, RW, read-only, guard that once had content */
	p = SYS(mmap(NULL, 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (int i = 0; i < 7; i += 2) {
		SYS(mprotect(p + i * PAGE, PAGE, PROT_READ | PROT_WRITE));
		mf_fill(p + i * PAGE, PAGE, i);
	}
	SYS(munmap(p + 3 * PAGE, PAGE));
	SYS(mprotect(p + 5 * PAGE, PAGE, PROT_READ));
	SYS(mprotect(p + 6 * PAGE, PAGE, PROT_NONE));
	conf_ready();
	conf_wait();
	mf_check(p, PAGE, 0, "page 0");
	mf_faults(p + PAGE, false, SIGSEGV, SEGV_ACCERR, "guard");
	mf_faults(p + 2 * PAGE - 1, true, SIGSEGV, SEGV_ACCERR, "guard's last byte");
	mf_check(p + 2 * PAGE, PAGE, 2, "page 2");
	mf_faults(p + 3 * PAGE + 5, false, SIGSEGV, SEGV_MAPERR, "hole");
	mf_check(p + 4 * PAGE, PAGE, 4, "page 4");
	mf_faults(p + 5 * PAGE, false, 0, 0, "read-only page");
	mf_faults(p + 5 * PAGE, true, SIGSEGV, SEGV_ACCERR, "read-only page");
	mf_faults(p + 6 * PAGE, false, SIGSEGV, SEGV_ACCERR, "page made a guard");
	OK(mprotect(p + 6 * PAGE, PAGE, PROT_READ));
	mf_check(p + 6 * PAGE, PAGE, 6, "page made a guard");
	mf_faults(p + 7 * PAGE, true, SIGSEGV, SEGV_ACCERR, "last guard");
	conf_pass();
}
