// kind: scheduling
// state: I/O priorities, different in each thread
// users: root nobody
// mutate: fermata.thread_extra.ioprio
// nocriu: restore: it does not save I/O priorities
// nocriu: mutate: it does not save I/O priorities
#include "conformance.h"
#include <linux/ioprio.h>

#ifndef IOPRIO_WHO_PROCESS
#define IOPRIO_WHO_PROCESS 1
#endif
static const int want[] = { IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 1), IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7), IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0) };
#define N 3
static int ready_count;

static void *run(void *arg)
{
	long i = (long)arg;

	SYS(syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, want[i]));
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	SAME(syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0), want[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[N];
	long i, before;

	conf_init(argc, argv);
	before = SYS(syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0));
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, (void *)i));
	UNTIL(ready_count == N, "the threads");
	conf_ready();
	conf_wait();
	SAME(syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0), before);
	for (i = 0; i < N; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
