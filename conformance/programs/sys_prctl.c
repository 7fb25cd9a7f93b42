// kind: task
// state: further prctl state: timer slack of each thread, no transparent huge pages
// users: root nobody
// mutate: mm_entry.thp_disabled|fermata.task_extra.thp_disabled fermata.thread_extra.timer_slack
// nocriu: restore: it saves the huge-page flag only
// nocriu: mutate: it saves the huge-page flag only
#include "conformance.h"

static volatile int set;

static void *run(void *arg)
{
	SYS(prctl(PR_SET_TIMERSLACK, 123456));
	set = 1;
	conf_wait();
	SAME(prctl(PR_GET_TIMERSLACK), 123456);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;

	conf_init(argc, argv);
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set, "the thread");
	SYS(prctl(PR_SET_TIMERSLACK, 77777));
	SYS(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	conf_ready();
	conf_wait();
	SAME(prctl(PR_GET_TIMERSLACK), 77777);
	SAME(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
	PT(pthread_join(t, NULL));
	conf_pass();
}
