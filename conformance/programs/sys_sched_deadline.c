// kind: scheduling
// state: a thread of the deadline policy, with runtime, deadline and period
// users: root; the policy needs privilege
// mutate: thread_core_entry.sched_policy|fermata.sched_attr.policy
// nocriu: it refuses the policy
#include "conformance.h"

struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t util_min, util_max;
};
static volatile int set;

static void *run(void *arg)
{
	struct attr a = { sizeof(a), 6 /* SCHED_DEADLINE */, 0, 0, 0, 2000000, 50000000, 100000000 }, now = { 0 };

	if (syscall(SYS_sched_setattr, 0, &a, 0) < 0)
		conf_skip("no deadline policy here: %s", strerror(errno));
	set = 1;
	conf_wait();
	OK(syscall(SYS_sched_getattr, 0, &now, sizeof(now), 0));
	SAME(now.policy, 6);
	SAME(now.runtime, a.runtime);
	SAME(now.deadline, a.deadline);
	SAME(now.period, a.period);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;

	conf_init(argc, argv);
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set, "the thread");
	conf_ready();
	conf_wait();
	PT(pthread_join(t, NULL));
	conf_pass();
}
