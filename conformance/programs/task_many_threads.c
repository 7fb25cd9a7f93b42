// kind: threads
// state: two hundred threads, asleep in a futex, each with its own variables
// users: root nobody
// mutate: thread_core_entry.blk_sigset user_x86_regs_entry.fs_base
#include "conformance.h"

#define N 200
static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t c = PTHREAD_COND_INITIALIZER;
static int ready_count, released, sum;
static __thread long mine;

static void *run(void *arg)
{
	long i = (long)arg;
	sigset_t s;

	mine = i * i;
	sigemptyset(&s);
	sigaddset(&s, SIGRTMIN + i % 20);
	PT(pthread_sigmask(SIG_SETMASK, &s, NULL));
	PT(pthread_mutex_lock(&m));
	ready_count++;
	while (!released)
		PT(pthread_cond_wait(&c, &m));
	sum += i;
	PT(pthread_mutex_unlock(&m));
	SAME(mine, i * i);
	PT(pthread_sigmask(SIG_SETMASK, NULL, &s));
	SAME(sigismember(&s, SIGRTMIN + i % 20), 1);
	return (void *)mine;
}

int main(int argc, char **argv)
{
	pthread_t t[N];
	pthread_attr_t a;
	void *r;
	long i;

	conf_init(argc, argv);
	PT(pthread_attr_init(&a));
	PT(pthread_attr_setstacksize(&a, 128 * 1024));
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], &a, run, (void *)i));
	UNTIL(__atomic_load_n(&ready_count, __ATOMIC_SEQ_CST) == N, "the threads");
	conf_ready();
	conf_wait();
	PT(pthread_mutex_lock(&m));
	released = 1;
	PT(pthread_cond_broadcast(&c));
	PT(pthread_mutex_unlock(&m));
	for (i = 0; i < N; i++) {
		PT(pthread_join(t[i], &r));
		SAME((long)r, i * i);
	}
	SAME(sum, N * (N - 1) / 2);
	conf_pass();
}
