// kind: threads
// state: ten threads with names, thread-local variables and results; more can be created and joined afterwards
// users: root nobody
// mutate: thread_core_entry.comm task_core_entry.comm|thread_core_entry.comm pstree_entry.threads
// short: yes
#include "conformance.h"

#define N 10
static __thread long local = 5;
static __thread char name[16];
static pid_t tids[N];
static int ready_count;

static const char *const names[N] = { "plain", "with space", "par(en", "theses) R 1", "new\nline", "fifteen-letters", "tab\there", "\xc3\xa9\xff", "x", "" };

static void *run(void *arg)
{
	long i = (long)arg;
	char now[16];

	local = i * 1000;
	snprintf(name, sizeof(name), "%s", names[i]);
	SYS(prctl(PR_SET_NAME, name));
	tids[i] = syscall(SYS_gettid);
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	SAME(local, i * 1000);
	SAME(syscall(SYS_gettid), tids[i]);
	OK(prctl(PR_GET_NAME, now));
	CHECK(!strcmp(now, names[i]), "thread %ld is called '%s', not '%s'", i, now, names[i]);
	CHECK(!strcmp(name, names[i]), "thread %ld's variable is '%s', not '%s'", i, name, names[i]);
	return (void *)(i + 77);
}

static void *fresh(void *arg)
{
	SAME(local, 5);
	return arg;
}

int main(int argc, char **argv)
{
	pthread_t t[N];
	char now[16];
	void *res;
	long i;

	conf_init(argc, argv);
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, (void *)i));
	UNTIL(ready_count == N, "the threads");
	SYS(prctl(PR_SET_NAME, "the (main) one"));
	conf_ready();
	conf_wait();
	for (i = 0; i < N; i++) {
		PT(pthread_join(t[i], &res));
		SAME((long)res, i + 77);
	}
	OK(prctl(PR_GET_NAME, now));
	CHECK(!strcmp(now, "the (main) one"), "the main thread is called '%s'", now);
	for (i = 0; i < N; i++) {
		PT(pthread_create(&t[i], NULL, fresh, (void *)i));
		PT(pthread_join(t[i], &res));
		SAME((long)res, i);
	}
	conf_pass();
}
