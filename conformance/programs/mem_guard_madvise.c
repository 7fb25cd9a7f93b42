// kind: memory
// state: guard regions without an area of their own (MADV_GUARD_INSTALL, since Linux 6.13)
// users: root nobody
// mutate: fermata.mm_extra.guards part:pages
#include "memfile.h"

#define GUARD_INSTALL 102
#define GUARD_REMOVE 103

int main(int argc, char **argv)
{
	struct mf_area a;
	char *p;

	conf_init(argc, argv);
	p = mf_anon(16 * PAGE);
	mf_fill(p, 16 * PAGE, 1);
	if (madvise(p + 4 * PAGE, 2 * PAGE, GUARD_INSTALL) < 0)
		conf_skip("this kernel has no guard regions");
	SYS(madvise(p + 15 * PAGE, PAGE, GUARD_INSTALL));
	conf_ready();
	conf_wait();
	mf_need_area(p, &a, "area");
	CHECK(a.start <= (uintptr_t)p && a.end >= (uintptr_t)p + 16 * PAGE, "the area is in pieces now");
	mf_check(p, 4 * PAGE, 1, "before the guard");
	mf_faults(p + 4 * PAGE, false, SIGSEGV, SEGV_MAPERR, "first guard page, read");
	mf_faults(p + 5 * PAGE, true, SIGSEGV, SEGV_MAPERR, "second guard page, written");
	mf_check_at(p + 6 * PAGE, 9 * PAGE, 1, 6 * PAGE, "behind the guard");
	mf_faults(p + 15 * PAGE, true, SIGSEGV, SEGV_MAPERR, "last guard page");
	OK(madvise(p + 4 * PAGE, PAGE, GUARD_REMOVE));
	mf_zero(p + 4 * PAGE, PAGE, "what was a guard page");
	conf_pass();
}
