// kind: memory
// state: shared anonymous memory of 1 GiB with a few pages in it, of which some are mapped nowhere any more
// users: root nobody
// mutate: part:pages
// unprivileged: only root can read shared anonymous memory whole
#include "memfile.h"

int main(int argc, char **argv)
{
	size_t n = 1UL << 30, hidden = 17 * PAGE;
	char *p, *again;
	struct mf_area a;

	conf_init(argc, argv);
	p = conf_shared(n);
	for (size_t at = 0; at < n; at += n / 16)
		mf_fill(p + at, PAGE, at);
	mf_fill(p + hidden, PAGE, 7);
	/* Content that is in the object, but in no mapping until it grows again. */
	again = SYS(mremap(p, 0, 64 * PAGE, MREMAP_MAYMOVE));
	mf_fill(again + 50 * PAGE, PAGE, 8);
	SYS(munmap(p + 50 * PAGE, PAGE));
	SYS(munmap(again + 50 * PAGE, 14 * PAGE));
	conf_ready();
	conf_wait();
	mf_need_area(p + n / 2, &a, "shared memory");
	CHECK(a.rss <= 1024, "the sparse memory has %ld kB now", a.rss);
	for (size_t at = 0; at < n; at += n / 16)
		mf_check(p + at, PAGE, at, "page of the sparse memory");
	mf_check(p + hidden, PAGE, 7, "page 17");
	mf_check(again + hidden, PAGE, 7, "page 17 in the second mapping");
	mf_zero(p + n / 32, PAGE, "an untouched page");
	again = OK(mremap(again, 50 * PAGE, 64 * PAGE, MREMAP_MAYMOVE));
	mf_check(again + 50 * PAGE, PAGE, 8, "the page that was mapped nowhere");
	mf_fill(again + 51 * PAGE, PAGE, 9);
	mf_check(p + 51 * PAGE, PAGE, 9, "page 51, written in the second mapping");
	conf_pass();
}
