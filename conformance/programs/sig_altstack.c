// kind: signals
// state: alternate signal stacks, one in each thread, with and without SS_AUTODISARM, and none
// users: root nobody
// mutate: thread_core_entry.sas thread_sas_entry.ss_sp thread_sas_entry.ss_size=4096 thread_sas_entry.ss_flags
#include "conformance.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
#define N 3
#define SIZE (64 * 1024)
static int ready_count;
static char *stacks[N + 1];
static __thread char *handler_stack;

static void handler(int sig)
{
	handler_stack = __builtin_frame_address(0);
}

static void set_up(int i)
{
	stack_t s = { .ss_sp = stacks[i], .ss_size = SIZE, .ss_flags = i == 1 ? (int)SS_AUTODISARM : 0 };

	if (i == 2)
		return; /* this one has none */
	SYS(sigaltstack(&s, NULL));
}

static void check(int i)
{
	stack_t now;

	OK(sigaltstack(NULL, &now));
	if (i == 2) {
		SAME(now.ss_flags, SS_DISABLE);
	} else {
		SAME((long)now.ss_sp, (long)stacks[i]);
		SAME(now.ss_size, SIZE);
		SAME(now.ss_flags, i == 1 ? (int)SS_AUTODISARM : 0);
	}
	OK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1));
	CHECK(handler_stack, "thread %d: no handler ran", i);
	SAME(handler_stack >= stacks[i] && handler_stack < stacks[i] + SIZE, i != 2);
}

static void *run(void *arg)
{
	set_up((long)arg);
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	check((long)arg);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_ONSTACK };
	pthread_t t[N];
	long i;

	conf_init(argc, argv);
	SYS(sigaction(SIGUSR1, &sa, NULL));
	for (i = 0; i <= N; i++)
		stacks[i] = SYS(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, (void *)i));
	set_up(N);
	UNTIL(ready_count == N, "the threads");
	conf_ready();
	conf_wait();
	check(N);
	for (i = 0; i < N; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
