// kind: memory
// state: mapping of one's own that grows down (MAP_GROWSDOWN), grown before and growing after
// users: root nobody
// mutate: vma_entry.flags=0x22 part:pages
#include "memfile.h"

int main(int argc, char **argv)
{
	size_t hole = 64 << 20, top = 4 * PAGE;
	struct mf_area a;
	char *base, *p;

	conf_init(argc, argv);
	base = SYS(mmap(NULL, hole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	SYS(munmap(base, hole));
	p = base + hole - top;
	CHECK(mmap(p, top, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0) == p,
	      "set-up: mmap: %s", strerror(errno));
	for (int i = 1; i <= 10; i++)
		mf_fill(p - i * PAGE, PAGE, i);
	conf_ready();
	conf_wait();
	mf_need_area(p, &a, "growing area");
	CHECK(mf_has_flag(&a, "gd"), "the area does not grow: %s", a.flags);
	SAME(a.start, (uintptr_t)p - 10 * PAGE);
	for (int i = 1; i <= 10; i++)
		mf_check(p - i * PAGE, PAGE, i, "page of the growing area");
	for (int i = 11; i <= 100; i++) {
		mf_zero(p - i * PAGE, PAGE, "page it grew by");
		mf_fill(p - i * PAGE, PAGE, i);
	}
	mf_need_area(p, &a, "growing area");
	SAME(a.start, (uintptr_t)p - 100 * PAGE);
	conf_pass();
}
