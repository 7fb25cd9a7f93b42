// kind: scheduling
// state: realtime threads: FIFO and RR with their priorities
// users: root; realtime policies need privilege
// mutate: thread_core_entry.sched_policy|fermata.sched_attr.policy thread_core_entry.sched_prio|fermata.sched_attr.priority
#include "conformance.h"

static const struct { int policy, prio; } want[] = { { SCHED_FIFO, 3 }, { SCHED_RR, 7 }, { SCHED_FIFO, 1 } };
#define N 3
static int ready_count;

static void *run(void *arg)
{
	long i = (long)arg;
	struct sched_param p = { want[i].prio };

	if (sched_setscheduler(0, want[i].policy, &p) < 0)
		conf_skip("no realtime policies here: %s", strerror(errno));
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	SAME(sched_getscheduler(0), want[i].policy);
	OK(sched_getparam(0, &p));
	SAME(p.sched_priority, want[i].prio);
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
	for (i = 0; i < N; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
