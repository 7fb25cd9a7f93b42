// kind: memory
// state: the heap: its content, its end, and that it goes on growing and shrinking
// users: root nobody
// mutate: mm_entry.mm_brk part:pages
#include "memfile.h"

int main(int argc, char **argv)
{
	char *p, *end;

	conf_init(argc, argv);
	p = sbrk(0);
	SYS(brk(p + 40 * PAGE + 123));
	mf_fill(p, 40 * PAGE + 123, 1);
	end = sbrk(0);
	conf_ready();
	conf_wait();
	CHECK(sbrk(0) == end, "the heap ends at %p, not %p", sbrk(0), end);
	mf_check(p, 40 * PAGE + 123, 1, "heap");
	OK(brk(end + 20 * PAGE));
	CHECK(sbrk(0) == end + 20 * PAGE, "the heap does not grow");
	mf_zero(end, 20 * PAGE, "what the heap grew by");
	mf_fill(end, 20 * PAGE, 2);
	OK(brk(p + PAGE));
	mf_check(p, PAGE, 1, "shrunk heap");
	conf_pass();
}
