// kind: scheduling
// state: nice values, different in each thread
// users: root nobody
// mutate: thread_core_entry.sched_nice|fermata.sched_attr.nice
#include "conformance.h"

#define N 3
static int ready_count;

static void *run(void *arg)
{
	int nice = (long)arg;

	SYS(setpriority(PRIO_PROCESS, syscall(SYS_gettid), nice));
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	SAME(getpriority(PRIO_PROCESS, syscall(SYS_gettid)), nice);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[N];
	long i, base;

	conf_init(argc, argv);
	base = getpriority(PRIO_PROCESS, 0); /* whoever runs the tests may be nice */
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, (void *)(conf_user_is_root() ? i * 10 - 9 : base + i * 3 + 1)));
	UNTIL(ready_count == N, "the threads");
	base += base < 19;
	SYS(setpriority(PRIO_PROCESS, getpid(), base));
	conf_ready();
	conf_wait();
	SAME(getpriority(PRIO_PROCESS, 0), base);
	for (i = 0; i < N; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
