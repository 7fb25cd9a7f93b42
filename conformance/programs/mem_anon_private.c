// kind: memory
// state: private anonymous memory: pages with content, pages never touched, a read-only page with content
// users: root nobody
// mutate: part:pages
// short: yes
#include "memfile.h"

int main(int argc, char **argv)
{
	size_t n = 600 * PAGE, untouched = 200 * PAGE;
	char *p, *ro;

	conf_init(argc, argv);
	p = mf_anon(n);
	mf_fill(p, 100 * PAGE, 1);		/* a run */
	mf_fill(p + 301 * PAGE, PAGE, 2);	/* a lonely page */
	mf_fill(p + n - 7, 7, 3);		/* the last bytes of the area */
	ro = mf_anon(PAGE);
	mf_fill(ro, PAGE, 4);
	SYS(mprotect(ro, PAGE, PROT_READ));
	conf_ready();
	conf_wait();
	for (size_t at = untouched; at < 300 * PAGE; at += PAGE)
		CHECK(!mf_touched(p + at), "page %zu was never touched, and is there now", at / PAGE);
	mf_check(p, 100 * PAGE, 1, "run of pages");
	mf_zero(p + 100 * PAGE, 201 * PAGE, "untouched pages");
	mf_check(p + 301 * PAGE, PAGE, 2, "lonely page");
	mf_zero(p + 302 * PAGE, n - 302 * PAGE - 7, "untouched pages after it");
	mf_check(p + n - 7, 7, 3, "last bytes");
	mf_check(ro, PAGE, 4, "read-only page");
	mf_faults(ro, true, SIGSEGV, SEGV_ACCERR, "read-only page");
	memset(p, 0x55, n);
	conf_pass();
}
