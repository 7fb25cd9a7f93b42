// kind: threads
// state: restartable sequences: every thread's registration (the C library's) is alive
// users: root nobody
// mutate: rseq_entry
#include "conformance.h"
#include <sys/rseq.h>

#define N 4
static int ready_count;
static int cpus[CPU_SETSIZE], ncpu;

static struct rseq *area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* The kernel must write the processor into the area each time it changes. */
static void check(const char *who)
{
	struct rseq *r = area();
	cpu_set_t set;
	int round, i;

	for (round = 0; round < 20; round++) {
		i = round % ncpu;
		CPU_ZERO(&set);
		CPU_SET(cpus[i], &set);
		OK(sched_setaffinity(0, sizeof(set), &set));
		/* Spoil it: only the kernel can put it right, on its way back to us. */
		*(volatile unsigned *)&r->cpu_id = 999;
		*(volatile unsigned *)&r->cpu_id_start = 999;
		conf_sleep_ms(1);
		sched_yield();
		SAME(*(volatile unsigned *)&r->cpu_id_start == 999 && *(volatile unsigned *)&r->cpu_id == 999, 0);
		SAME(*(volatile unsigned *)&r->cpu_id, sched_getcpu());
		SAME(*(volatile unsigned *)&r->cpu_id, cpus[i]);
	}
	/* Registering it again must say that it is registered (EBUSY: the same one). */
	CHECK(syscall(SYS_rseq, r, 32, 0, 0x53053053) < 0 && errno == EBUSY, "%s: not registered: %s", who, strerror(errno));
}

static void *run(void *arg)
{
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	check("thread");
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[N];
	cpu_set_t set;
	long i;

	conf_init(argc, argv);
	if (__rseq_size == 0)
		conf_skip("the C library has not registered rseq");
	SYS(sched_getaffinity(0, sizeof(set), &set));
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set))
			cpus[ncpu++] = i;
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, NULL));
	UNTIL(ready_count == N, "the threads");
	conf_ready();
	conf_wait();
	check("main");
	for (i = 0; i < N; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
