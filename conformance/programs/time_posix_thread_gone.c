// kind: timers
// state: a POSIX timer for a thread (SIGEV_THREAD_ID) that has ended: it runs and tells nobody
// users: root nobody
// mutate: fermata.posix_timer
#include "conformance.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static timer_t id;

static void *run(void *arg)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 4 };

	(void)arg;
	ev.sigev_notify_thread_id = syscall(SYS_gettid);
	SYS(timer_create(CLOCK_MONOTONIC, &ev, &id));
	return NULL;
}

int main(int argc, char **argv)
{
	struct itimerspec t = { .it_value = { 1000, 0 }, .it_interval = { 5, 0 } }, now;
	sigset_t all, pending;
	pthread_t th;

	conf_init(argc, argv);
	sigfillset(&all);
	SYS(sigprocmask(SIG_BLOCK, &all, NULL));
	PT(pthread_create(&th, NULL, run, NULL));
	PT(pthread_join(th, NULL));
	SYS(timer_settime(id, 0, &t, NULL));
	conf_ready();
	conf_wait();
	OK(timer_gettime(id, &now));
	CHECK(now.it_value.tv_sec > 900 && now.it_value.tv_sec < 1000, "%ld s are left", (long)now.it_value.tv_sec);
	SAME(now.it_interval.tv_sec, 5);
	t.it_value = (struct timespec){ 0, 1000000 };
	OK(timer_settime(id, 0, &t, NULL));
	conf_sleep_ms(20);
	OK(sigpending(&pending));
	CHECK(!sigismember(&pending, SIGRTMIN + 4), "its signal came");
	conf_pass();
}
