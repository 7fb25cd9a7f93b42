// kind: threads
// state: robust futexes: whoever waits for a thread's mutex learns that it died
// users: root nobody
// mutate: thread_core_entry.futex_rla
#include "conformance.h"

static pthread_mutex_t held[3];
static volatile pid_t tid;
static volatile int looked;

static void *owner(void *arg)
{
	int i;

	for (i = 0; i < 3; i++)
		PT(pthread_mutex_lock(&held[i]));
	tid = syscall(SYS_gettid);
	conf_wait();
	UNTIL(looked, "main to look");
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_mutexattr_t attr;
	struct timespec limit;
	pthread_t t;
	void *head[2];
	size_t len[2];
	int i, r;

	conf_init(argc, argv);
	PT(pthread_mutexattr_init(&attr));
	PT(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST));
	for (i = 0; i < 3; i++)
		PT(pthread_mutex_init(&held[i], &attr));
	PT(pthread_create(&t, NULL, owner, NULL));
	UNTIL(tid, "the owner");
	SYS(syscall(SYS_get_robust_list, tid, &head[0], &len[0]));
	CHECK(head[0], "no robust list to begin with");
	conf_ready();
	conf_wait();
	OK(syscall(SYS_get_robust_list, tid, &head[1], &len[1]));
	SAME((long)head[1], (long)head[0]);
	SAME(len[1], len[0]);
	looked = 1;
	for (i = 0; i < 3; i++) {
		clock_gettime(CLOCK_REALTIME, &limit);
		limit.tv_sec += 1 + conf_patience_ms() / 1000;
		r = pthread_mutex_timedlock(&held[i], &limit);
		CHECK(r == EOWNERDEAD, "mutex %d of a dead thread: %s", i, strerror(r));
	}
	conf_pass();
}
