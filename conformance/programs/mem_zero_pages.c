// kind: memory
// state: pages only ever read (the zero page) and pages full of zeros: the former take no memory after the restore either
// users: root nobody
// mutate: vma_entry.prot=0
#include "memfile.h"

int main(int argc, char **argv)
{
	struct mf_area a;
	char *p, *q;

	conf_init(argc, argv);
	p = mf_anon(1024 * PAGE);
	SYS(madvise(p, 1024 * PAGE, MADV_NOHUGEPAGE));
	for (int i = 0; i < 1024; i++)
		(void)*(volatile char *)(p + i * PAGE);
	q = mf_anon(64 * PAGE);
	memset(q, 0xff, 64 * PAGE);
	memset(q, 0, 64 * PAGE);
	mf_need_area(p, &a, "pages only read");
	conf_ready();
	conf_wait();
	mf_need_area(p, &a, "pages only read");
	CHECK(a.anonymous - 256 <= 64, "pages that were only read take %ld kB", a.anonymous);
	mf_zero(p, 1024 * PAGE, "pages only read");
	mf_zero(q, 64 * PAGE, "pages full of zeros");
	mf_fill(p + 5 * PAGE, PAGE, 1);
	mf_zero(p + 6 * PAGE, PAGE, "the page beside the first one written");
	mf_check(p + 5 * PAGE, PAGE, 1, "first page written");
	conf_pass();
}
