// kind: task
// state: a thread that may not read the time-stamp counter (PR_SET_TSC)
// users: root nobody
// mutate: fermata.thread_extra.tsc_off
// nocriu: restore: it does not save it
// nocriu: mutate: it does not save it
#include "conformance.h"
#include <setjmp.h>

static volatile int set, end;
static sigjmp_buf out;

static void handler(int sig)
{
	siglongjmp(out, 1);
}

/* It must not use the vdso's clocks, which read the counter. */
static void *run(void *arg)
{
	struct timespec ms = { 0, 1000000 };
	int mode = 0;

	SYS(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	set = 1;
	while (!end)
		syscall(SYS_nanosleep, &ms, NULL);
	OK(prctl(PR_GET_TSC, &mode));
	SAME(mode, PR_TSC_SIGSEGV);
	if (sigsetjmp(out, 1) == 0) {
		__builtin_ia32_rdtsc();
		conf_fail("the counter can be read");
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;
	int mode = 0;

	conf_init(argc, argv);
	signal(SIGSEGV, handler);
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set, "the thread");
	conf_ready();
	conf_wait();
	end = 1;
	PT(pthread_join(t, NULL));
	OK(prctl(PR_GET_TSC, &mode));
	SAME(mode, PR_TSC_ENABLE);
	__builtin_ia32_rdtsc();
	conf_pass();
}
