// kind: signals
// state: signal masks, different in each thread, with realtime signals
// users: root nobody
// mutate: thread_core_entry.blk_sigset task_core_entry.blk_sigset|thread_core_entry.blk_sigset
// short: yes
#include "conformance.h"

#define N 4
static const uint64_t masks[N] = { 0x0000000000000000, 0x8000000000000001, 0x5555555500001000, 0xffffffff7ffb7aff };
static int ready_count;

/* The kernel's own view, all 64 bits of it: the C library hides 32 and 33. */
static uint64_t set_mask(uint64_t m)
{
	SYS(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &m, NULL, 8));
	SYS(syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &m, 8));
	return m;
}

static void check_mask(const char *who, uint64_t want)
{
	uint64_t m;

	OK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &m, 8));
	CHECK(m == want, "%s blocks %#lx, not %#lx", who, m, want);
}

static void *run(void *arg)
{
	uint64_t m = set_mask(masks[(long)arg]);

	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	check_mask("a thread", m);
	set_mask(~0ULL);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[N];
	uint64_t m;
	long i;

	conf_init(argc, argv);
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, (void *)i));
	UNTIL(ready_count == N, "the threads");
	m = set_mask(0x2000000000004a00);
	conf_ready();
	conf_wait();
	check_mask("main", m);
	for (i = 0; i < N; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
