// kind: time
// state: POSIX timers that fire all the time, to the process and to one thread, with their values
// users: root nobody
// mutate: posix_timer_entry|fermata.posix_timer
// moving: status
#include "conformance.h"

static volatile int count[2], wrong;
static volatile pid_t other;

static void handler(int sig, siginfo_t *si, void *ctx)
{
	int i = si->si_value.sival_int;

	if (si->si_code != SI_TIMER || i < 0 || i > 1 || (i == 1 && syscall(SYS_gettid) != other))
		wrong = 1;
	else
		count[i]++;
}

static void *run(void *arg)
{
	other = syscall(SYS_gettid);
	conf_wait_eintr();
	UNTIL(count[0] < 0, "the end");
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct itimerspec it = { { 0, 5000000 }, { 0, 5000000 } };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2 };
	pthread_t t;
	int id[2], i, a, b;

	conf_init(argc, argv);
	SYS(sigaction(SIGRTMIN + 2, &sa, NULL));
	SYS(sigaction(SIGRTMIN + 3, &sa, NULL));
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(other, "the thread");
	for (i = 0; i < 2; i++) {
		ev.sigev_value.sival_int = i;
		if (i) {
			ev.sigev_notify = SIGEV_THREAD_ID;
			ev.sigev_signo = SIGRTMIN + 3;
			ev._sigev_un._tid = other;
		}
		SYS(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id[i]));
		SYS(syscall(SYS_timer_settime, id[i], 0, &it, NULL));
	}
	UNTIL(count[0] > 3 && count[1] > 3, "the first ticks");
	conf_ready();
	conf_wait_eintr();
	a = count[0];
	b = count[1];
	UNTIL(count[0] > a + 3 && count[1] > b + 3, "ticks after the checkpoint");
	CHECK(!wrong, "a tick with the wrong value, code or thread");
	conf_pass();
}
