// kind: scheduling
// state: what only sched_setattr sets: a time slice of its own, utilisation limits
// users: root nobody
// mutate: fermata.sched_attr.runtime
// nocriu: restore: it does not save it
// nocriu: mutate: it does not save it
#include "conformance.h"

struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};

#define SLICE 7000000
static volatile int set;

static void get(struct attr *a)
{
	memset(a, 0, sizeof(*a));
	OK(syscall(SYS_sched_getattr, 0, a, sizeof(*a), 0));
}

static void *run(void *arg)
{
	struct attr a, now;

	get(&a);
	a.runtime = SLICE;
	if (syscall(SYS_sched_setattr, 0, &a, 0) < 0)
		conf_skip("no slices: %s", strerror(errno));
	get(&a);
	if (a.runtime != SLICE)
		conf_skip("this kernel has no slices of tasks' own");
	a.flags = 0x20 | 0x40 | 0x08 | 0x10; /* util clamp, keep policy and parameters */
	a.util_min = 100;
	a.util_max = 800;
	syscall(SYS_sched_setattr, 0, &a, 0); /* not every kernel has it */
	get(&a);
	set = 1;
	conf_wait();
	get(&now);
	CHECK(!memcmp(&now, &a, sizeof(a)), "slice %lu utilisation %u-%u policy %u flags %#lx nice %d, was %lu %u-%u %u %#lx %d", now.runtime, now.util_min,
	      now.util_max, now.policy, now.flags, now.nice, a.runtime, a.util_min, a.util_max, a.policy, a.flags, a.nice);
	return NULL;
}

int main(int argc, char **argv)
{
	struct attr a, now;
	pthread_t t;

	conf_init(argc, argv);
	get(&a);
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set, "the thread");
	conf_ready();
	conf_wait();
	PT(pthread_join(t, NULL));
	get(&now);
	CHECK(!memcmp(&now, &a, sizeof(a)), "the main thread has changed");
	conf_pass();
}
