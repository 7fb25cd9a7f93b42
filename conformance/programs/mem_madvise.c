// kind: memory
// state: advice kept per area: DONTFORK, DONTDUMP, WIPEONFORK, HUGEPAGE, NOHUGEPAGE, MERGEABLE, SEQUENTIAL, RANDOM, and several at once
// users: root nobody
// mutate: vma_entry.madv
// short: yes
#include "memfile.h"

static struct {
	int advice;
	const char *flag;
	char *at;
	struct mf_area was;
} a[] = {
	{ MADV_DONTFORK, "dc" },   { MADV_DONTDUMP, "dd" },  { MADV_WIPEONFORK, "wf" }, { MADV_HUGEPAGE, "hg" },
	{ MADV_NOHUGEPAGE, "nh" }, { MADV_MERGEABLE, "mg" }, { MADV_SEQUENTIAL, "sr" }, { MADV_RANDOM, "rr" },
	{ 0 },			   { MADV_NORMAL, "rd" },
};
#define N (sizeof(a) / sizeof(a[0]))

static void child(void)
{
	for (size_t i = 0; i < N; i++)
		if (a[i].advice == MADV_DONTFORK || !a[i].flag)
			mf_faults(a[i].at, false, SIGSEGV, SEGV_MAPERR, "DONTFORK area in a child");
		else if (a[i].advice == MADV_WIPEONFORK)
			mf_zero(a[i].at, PAGE, "WIPEONFORK area in a child");
		else
			mf_check(a[i].at, PAGE, i, "area in a child");
}

int main(int argc, char **argv)
{
	struct mf_area now;

	conf_init(argc, argv);
	for (size_t i = 0; i < N; i++) {
		/* A guard page on each side keeps neighbours apart. */
		char *p = SYS(mmap(NULL, 18 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

		a[i].at = p + PAGE;
		SYS(mprotect(a[i].at, 16 * PAGE, PROT_READ | PROT_WRITE));
		if (a[i].flag) {
			SYS(madvise(a[i].at, 16 * PAGE, a[i].advice));
		} else {	/* several at once */
			SYS(madvise(a[i].at, 16 * PAGE, MADV_DONTFORK));
			SYS(madvise(a[i].at, 16 * PAGE, MADV_DONTDUMP));
			SYS(madvise(a[i].at, 16 * PAGE, MADV_NOHUGEPAGE));
			SYS(madvise(a[i].at, 16 * PAGE, MADV_MERGEABLE));
		}
		mf_fill(a[i].at, PAGE, i);
		mf_need_area(a[i].at, &a[i].was, "area");
		CHECK(!a[i].flag || mf_has_flag(&a[i].was, a[i].flag), "set-up: no flag %s: %s", a[i].flag, a[i].was.flags);
	}
	conf_ready();
	conf_wait();
	for (size_t i = 0; i < N; i++) {
		mf_need_area(a[i].at, &now, "area");
		mf_same_area(&now, &a[i].was, a[i].flag ? a[i].flag : "several");
		mf_check(a[i].at, PAGE, i, "content");
	}
	conf_reap_ok(mf_spawn(child));
	conf_pass();
}
