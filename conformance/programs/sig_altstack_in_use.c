// kind: signals
// state: a handler that runs on its alternate stack, and one on an SS_AUTODISARM stack, during the checkpoint
// users: root nobody
// mutate: thread_core_entry.sas
#include "conformance.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif
#define SIZE (64 * 1024)
static int in_handler;
static char *stacks[2];

/* Runs across the checkpoint; its locals are on the alternate stack. */
static void handler(int sig, siginfo_t *si, void *ctx)
{
	volatile char local[4096];
	int i = si->si_value.sival_int;
	stack_t now;
	size_t k;

	for (k = 0; k < sizeof(local); k++)
		local[k] = k + i;
	__atomic_add_fetch(&in_handler, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	for (k = 0; k < sizeof(local); k++)
		SAME(local[k], (char)(k + i));
	CHECK((char *)local >= stacks[i] && (char *)local < stacks[i] + SIZE, "handler %d left its stack", i);
	OK(sigaltstack(NULL, &now));
	/* AUTODISARM: inside the handler there is no alternate stack. */
	SAME(now.ss_flags, i ? SS_DISABLE : SS_ONSTACK);
	if (!i)
		SAME((long)now.ss_sp, (long)stacks[i]);
}

static void *run(void *arg)
{
	int i = (long)arg;
	union sigval v = { .sival_int = i };
	stack_t s = { .ss_sp = stacks[i], .ss_size = SIZE, .ss_flags = i ? (int)SS_AUTODISARM : 0 }, now;

	SYS(sigaltstack(&s, NULL));
	PT(pthread_sigqueue(pthread_self(), SIGUSR1, v));
	/* Here again after the checkpoint. */
	CHECK(conf_gone(), "the handler returned too early");
	OK(sigaltstack(NULL, &now));
	SAME((long)now.ss_sp, (long)stacks[i]);
	SAME(now.ss_size, SIZE);
	SAME(now.ss_flags, i ? (int)SS_AUTODISARM : 0);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_ONSTACK | SA_SIGINFO };
	pthread_t t[2];
	long i;

	conf_init(argc, argv);
	SYS(sigaction(SIGUSR1, &sa, NULL));
	for (i = 0; i < 2; i++) {
		stacks[i] = SYS(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		PT(pthread_create(&t[i], NULL, run, (void *)i));
	}
	UNTIL(in_handler == 2, "the handlers");
	conf_ready();
	conf_wait();
	for (i = 0; i < 2; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
