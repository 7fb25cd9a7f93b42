// kind: task
// state: further prctl state: KSM for all memory (PR_SET_MEMORY_MERGE), what a thread gets for broken memory (PR_MCE_KILL), the choice of timer numbers (PR_TIMER_CREATE_RESTORE_IDS), the size of the hash of private futexes (PR_FUTEX_HASH), huge pages only where advised; a child that has none of it
// users: root nobody
// mutate: fermata.mm_extra.ksm fermata.thread_extra.mce_kill fermata.task_extra.timer_ids fermata.mm_extra.futex_slots fermata.mm_extra.thp_flags
// nocriu: does not know these
#include "conformance.h"

#define SET_MEMORY_MERGE 67
#define GET_MEMORY_MERGE 68
#define TIMER_RESTORE_IDS 77
#define FUTEX_HASH 78

static volatile int set;

static void *run(void *arg)
{
	(void)arg;
	if (prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0) < 0)
		conf_skip("PR_MCE_KILL: %s", strerror(errno));
	set = 1;
	conf_wait();
	SAME(OK(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0)), PR_MCE_KILL_EARLY);
	return NULL;
}

int main(int argc, char **argv)
{
	int merge, ids, hash, thp;
	pthread_t t;
	pid_t pid;

	conf_init(argc, argv);
	pid = SYS(fork());
	if (pid == 0) {
		conf_wait();
		SAME(prctl(GET_MEMORY_MERGE, 0, 0, 0, 0), 0);
		SAME(prctl(TIMER_RESTORE_IDS, 2, 0, 0, 0), 0);
		SAME(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
		_exit(0);
	}
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set, "the thread");
	merge = prctl(SET_MEMORY_MERGE, 1, 0, 0, 0); /* Linux 6.4 */
	ids = prctl(TIMER_RESTORE_IDS, 1, 0, 0, 0);  /* 6.15 */
	hash = prctl(FUTEX_HASH, 1, 64, 0, 0);       /* 6.16 */
	thp = prctl(PR_SET_THP_DISABLE, 1, 2, 0, 0); /* 6.18 */
	if (merge || ids || hash || thp)
		conf_skip("this kernel lacks some: %d %d %d %d", merge, ids, hash, thp);
	conf_ready();
	conf_wait();
	SAME(prctl(GET_MEMORY_MERGE, 0, 0, 0, 0), 1);
	SAME(prctl(TIMER_RESTORE_IDS, 2, 0, 0, 0), 1);
	SAME(prctl(FUTEX_HASH, 2, 0, 0, 0), 64);
	SAME(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 3);
	SAME(OK(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0)), PR_MCE_KILL_DEFAULT);
	PT(pthread_join(t, NULL));
	conf_reap_ok(pid);
	conf_pass();
}
