// kind: memory
// state: the main stack, which goes on growing after the restore, down to its limit and not further
// users: root nobody
// mutate: part:pages
// short: yes
#include "memfile.h"

/* Uses the stack 64 KiB at a time; every frame proves itself on the way back. */
static __attribute__((noinline)) int deep(int n)
{
	volatile char frame[65536];
	int r;

	memset((void *)frame, n, sizeof(frame));
	r = n ? deep(n - 1) : 0;
	for (size_t i = 0; i < sizeof(frame); i += 512)
		CHECK(frame[i] == (char)n, "stack frame %d is damaged", n);
	return r + 1;
}

static char alt[65536];
static volatile char *lowest;

/* Writes page by page below the stack until that isn't possible. */
static void to_the_limit(void)
{
	stack_t ss = { .ss_sp = alt, .ss_size = sizeof(alt) };
	struct sigaction sa = { .sa_sigaction = mf_on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	volatile char here;

	OK(sigaltstack(&ss, NULL));
	sigaction(SIGSEGV, &sa, NULL);
	lowest = &here;
	if (!sigsetjmp(mf_jump, 1))
		for (;; lowest -= PAGE)
			*lowest = 1;
}

int main(int argc, char **argv)
{
	struct rlimit lim;
	struct mf_area a;
	char here[10000];
	size_t used;

	conf_init(argc, argv);
	mf_fill(here, sizeof(here), 1);
	SYS(getrlimit(RLIMIT_STACK, &lim));
	if (lim.rlim_cur > 64 << 20) {
		lim.rlim_cur = 8 << 20;
		SYS(setrlimit(RLIMIT_STACK, &lim));
	}
	deep(8);
	conf_ready();
	conf_wait();
	mf_check(here, sizeof(here), 1, "stack");
	mf_need_area(here, &a, "stack");
	CHECK(!strcmp(a.name, "[stack]"), "the stack is called \"%s\"", a.name);
	CHECK(mf_has_flag(&a, "gd"), "the stack does not grow: %s", a.flags);
	SAME(deep(80), 81);
	to_the_limit();
	CHECK(mf_last.addr == lowest, "fault at %p, not %p", mf_last.addr, lowest);
	mf_need_area(here, &a, "stack");
	used = a.end - (uintptr_t)lowest;
	/* The kernel counts from the end of the area. */
	CHECK(used > lim.rlim_cur - 2 * PAGE && used < lim.rlim_cur + 2 * PAGE, "the stack grew to %zu bytes, its limit is %zu",
	      used, (size_t)lim.rlim_cur);
	mf_check(here, sizeof(here), 1, "stack, grown");
	conf_pass();
}
