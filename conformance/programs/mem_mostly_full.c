// kind: memory
// state: memory of several huge pages' size in small pages, nearly all of it written, a part of it only here and there; what was not written is zero, what is written later is the program's own
// users: root nobody
// mutate: part:pages
#include "memfile.h"
#include <sys/random.h>

#define HUGE (2UL << 20)
#define MEM (8 * HUGE)

static char *mem;

/* Whether a page was written: all but some, and few of the last huge page's. */
static bool written(size_t i)
{
	return i * PAGE < MEM - HUGE ? i % 61 != 7 : i % 16 == 3;
}

int main(int argc, char **argv)
{
	static const char zero[4096];
	uint64_t mine;

	conf_init(argc, argv);
	mem = mf_anon(MEM + HUGE);
	mem += -(uintptr_t)mem & (HUGE - 1);
	for (size_t i = 0; i < MEM / PAGE; i++)
		if (written(i))
			mf_fill(mem + i * PAGE, PAGE, i);
	conf_ready();
	conf_wait();
	for (size_t i = 0; i < MEM / PAGE; i++)
		if (written(i))
			mf_check(mem + i * PAGE, PAGE, i, "a page that was written");
		else
			CHECK(!memcmp(mem + i * PAGE, zero, PAGE), "page %zu, which was never written, is not zero", i);
	/* Whoever else has pages in common with it must not see what it writes now. */
	OK(getrandom(&mine, sizeof(mine), 0));
	for (size_t i = 0; i < MEM / PAGE; i += 3)
		*(uint64_t *)(mem + i * PAGE) = mine + i;
	conf_sleep_ms(50);
	for (size_t i = 0; i < MEM / PAGE; i++)
		if (i % 3 == 0)
			SAME(*(uint64_t *)(mem + i * PAGE), mine + i);
		else if (written(i))
			mf_check(mem + i * PAGE, PAGE, i, "a page that is still as it was");
	conf_pass();
}
