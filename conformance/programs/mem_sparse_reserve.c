// kind: memory
// state: large reservations: 1 TiB without access, 256 GiB without reserve of which 200 pages are touched
// users: root nobody
// mutate: part:pages
// short: yes
#include "memfile.h"

int main(int argc, char **argv)
{
	size_t tib = 1UL << 40, n = 256UL << 30, step = n / 200 / 4096 * 4096;
	struct mf_area was[2], now;
	char *none, *p;

	conf_init(argc, argv);
	none = SYS(mmap(NULL, tib, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	p = SYS(mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	for (size_t i = 0; i < 200; i++)
		mf_fill(p + i * step, PAGE, i);
	mf_need_area(none + tib / 2, &was[0], "reservation");
	mf_need_area(p + n / 2, &was[1], "sparse memory");
	conf_ready();
	conf_wait();
	mf_need_area(none + tib / 2, &now, "reservation");
	mf_same_area(&now, &was[0], "reservation");
	mf_need_area(p + n / 2, &now, "sparse memory");
	mf_same_area(&now, &was[1], "sparse memory");
	CHECK(now.rss <= was[1].rss + 64, "the sparse memory has %ld kB, had %ld", now.rss, was[1].rss);
	for (size_t i = 0; i < 200; i++)
		mf_check(p + i * step, PAGE, i, "touched page");
	mf_zero(p + step / 2 / PAGE * PAGE, PAGE, "untouched page");
	mf_faults(none + tib / 2, false, SIGSEGV, SEGV_ACCERR, "reservation");
	OK(mprotect(none + tib / 2, PAGE, PROT_READ | PROT_WRITE));
	mf_fill(none + tib / 2, PAGE, 1);
	conf_pass();
}
