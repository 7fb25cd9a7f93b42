// Programs for the tests of package tracee, by the first argument. Each writes
// a byte to stdout when it is what it should be.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void ready(void) { if (write(1, "r", 1) != 1) _exit(9); }

static void nap(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
	while (nanosleep(&t, &t)) ;
}

static void *nothing(void *arg) { nap((long)arg); return 0; }

static void *spin(void *arg)
{
	volatile double x = 1;
	for (;;) x = x * 1.0000001 + 0.1;
}

// churn makes threads and processes, that do the same, all the time.
static void *threads(void *arg)
{
	for (;;) {
		pthread_t t[3];
		int n = 0;
		for (; n < 3; n++) if (pthread_create(&t[n], 0, nothing, (void *)1)) break;
		while (n) pthread_join(t[--n], 0);
	}
}

static void churn(int deep)
{
	pthread_t t;
	for (int i = 0; i < 2; i++) pthread_create(&t, 0, threads, 0);
	if (deep == 0) ready();
	for (int n = 0, kids = 0; deep == 0 || n < 30; n++) {
		pid_t p = fork();
		if (p == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (deep < 2) churn(deep + 1);
			nap(2);
			_exit(0);
		}
		if (p > 0) kids++;
		while (kids && waitpid(-1, 0, kids < 3 && n < 29 ? WNOHANG : 0) > 0) kids--;
		nap(3);
	}
	_exit(0); // it has no child any more
}

// outOfReach: a parent in vfork, whose child takes ms to exit, beside a thread
// that works.
static void outOfReach(long ms)
{
	pthread_t t;
	pthread_create(&t, 0, spin, 0);
	ready();
	if (vfork() == 0) {
		struct timespec d = { ms / 1000, ms % 1000 * 1000000 };
		nanosleep(&d, 0);
		_exit(0);
	}
	int st;
	wait(&st);
	ready();
	for (;;) pause();
}

// hold: threads with masks of their own, one works and one sleeps.
static void *sleeps(void *arg)
{
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR2);
	sigaddset(&m, SIGTERM);
	sigaddset(&m, SIGRTMIN + 3);
	pthread_sigmask(SIG_SETMASK, &m, 0);
	ready();
	for (;;) nap(100000);
}

static void hold(void)
{
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigaddset(&m, SIGUSR2);
	sigaddset(&m, SIGRTMIN + 3);
	pthread_sigmask(SIG_SETMASK, &m, 0);
	pthread_t t;
	pthread_create(&t, 0, sleeps, 0);
	spin(0);
}

int main(int argc, char **argv)
{
	if (!strcmp(argv[1], "churn")) churn(0);
	if (!strcmp(argv[1], "vfork")) outOfReach(atol(argv[2]));
	if (!strcmp(argv[1], "hold")) hold();
	return 2;
}
