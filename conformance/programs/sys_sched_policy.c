// kind: scheduling
// state: policies of threads: OTHER, BATCH, IDLE, with and without reset on fork
// users: root nobody
// mutate: thread_core_entry.sched_policy|fermata.sched_attr.policy
#include "conformance.h"

#ifndef SCHED_RESET_ON_FORK
#define SCHED_RESET_ON_FORK 0x40000000
#endif
static const int policies[] = { SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_BATCH | SCHED_RESET_ON_FORK };
#define N 4
static int ready_count;

static void *run(void *arg)
{
	struct sched_param p = { 0 };
	int policy = policies[(long)arg];

	SYS(sched_setscheduler(0, policy, &p));
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	SAME(sched_getscheduler(0), policy);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[N];
	long i;

	conf_init(argc, argv);
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, (void *)i));
	UNTIL(ready_count == N, "the threads");
	conf_ready();
	conf_wait();
	SAME(sched_getscheduler(0), SCHED_OTHER);
	for (i = 0; i < N; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
