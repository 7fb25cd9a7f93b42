// kind: memory
// state: transparent huge pages: advice and content, whole ones and one that was split
// users: root nobody
// mutate: part:pages vma_entry.madv
#include "hugepages.h"

int main(int argc, char **argv)
{
	struct mf_area a;
	char *base, *p;

	conf_init(argc, argv);
	base = mf_anon(10 * HUGE);
	p = (char *)(((uintptr_t)base + HUGE - 1) & ~(HUGE - 1));
	if (madvise(p, 8 * HUGE, MADV_HUGEPAGE) < 0)
		conf_skip("this kernel has no transparent huge pages");
	mf_fill(p, 2 * HUGE, 1);
	mf_fill(p + 3 * HUGE, 10, 2);
	mf_fill(p + 5 * HUGE, HUGE, 3);
	SYS(madvise(p + 5 * HUGE + 16 * PAGE, PAGE, MADV_DONTNEED));
	mf_need_area(p, &a, "memory");
	conf_log("%ld kB in huge pages before", a.anon_huge);
	conf_ready();
	conf_wait();
	mf_need_area(p, &a, "memory");
	conf_log("%ld kB in huge pages after", a.anon_huge);
	CHECK(mf_has_flag(&a, "hg"), "the advice is gone: %s", a.flags);
	SAME(a.start, (uintptr_t)p);
	SAME(a.end, (uintptr_t)p + 8 * HUGE);
	mf_check(p, 2 * HUGE, 1, "huge pages 0 and 1");
	mf_zero(p + 2 * HUGE, HUGE, "untouched huge page");
	mf_check(p + 3 * HUGE, 10, 2, "beginning of page 3");
	mf_zero(p + 3 * HUGE + 10, HUGE - 10, "rest of page 3");
	mf_check(p + 5 * HUGE, 16 * PAGE, 3, "split page");
	mf_zero(p + 5 * HUGE + 16 * PAGE, PAGE, "the piece thrown away");
	mf_check_at(p + 5 * HUGE + 17 * PAGE, HUGE - 17 * PAGE, 3, 17 * PAGE, "rest of the split page");
	conf_pass();
}
