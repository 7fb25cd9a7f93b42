// kind: scheduling
// state: CPU affinity, different in each thread
// users: root nobody
// mutate: fermata.thread_extra.affinity
// nocriu: restore: it does not save affinity
// nocriu: mutate: it does not save affinity
#include "conformance.h"

#define N 2
static int ready_count, cpus[2];

static void *run(void *arg)
{
	cpu_set_t set, now;
	long i = (long)arg;

	CPU_ZERO(&set);
	CPU_SET(cpus[i], &set);
	SYS(sched_setaffinity(0, sizeof(set), &set));
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	OK(sched_getaffinity(0, sizeof(now), &now));
	CHECK(CPU_EQUAL(&now, &set), "thread %ld may run elsewhere", i);
	SAME(sched_getcpu(), cpus[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	cpu_set_t all, now;
	pthread_t t[N];
	long i, n = 0;

	conf_init(argc, argv);
	SYS(sched_getaffinity(0, sizeof(all), &all));
	for (i = 0; i < CPU_SETSIZE && n < 2; i++)
		if (CPU_ISSET(i, &all))
			cpus[n++] = i;
	if (n < 2)
		conf_skip("this machine has one processor only");
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, (void *)i));
	UNTIL(ready_count == N, "the threads");
	conf_ready();
	conf_wait();
	OK(sched_getaffinity(0, sizeof(now), &now));
	CHECK(CPU_EQUAL(&now, &all), "main's affinity has changed");
	for (i = 0; i < N; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
