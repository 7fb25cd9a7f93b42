// kind: files
// state: signal-driven input: owner (process, group, thread), signal number, O_ASYNC
// users: root nobody
// mutate: fown_entry.signum fown_entry.pid
// nocriu: cannot restore an owner that is a thread
#include "memfile.h"

static volatile sig_atomic_t got[65], got_fd[65];
static pid_t tid;

static void on_signal(int sig, siginfo_t *si, void *uc)
{
	got[sig]++;
	got_fd[sig] = si->si_fd;
	if (sig == SIGRTMIN + 2)
		CHECK(syscall(SYS_gettid) == tid, "the signal came to thread %ld, not %d", syscall(SYS_gettid), tid);
}

static void *thread(void *stop)
{
	tid = syscall(SYS_gettid);
	mf_mark("thread-set");
	while (!*(volatile int *)stop)
		conf_sleep_ms(1);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct f_owner_ex own;
	int p[2], sk[2], q[2], plain[2], stop = 0;
	pthread_t t;

	conf_init(argc, argv);
	SYS(sigaction(SIGRTMIN + 1, &sa, NULL));
	SYS(sigaction(SIGRTMIN + 2, &sa, NULL));
	SYS(sigaction(SIGIO, &sa, NULL));
	SYS(sigaction(SIGUSR1, &sa, NULL));
	PT(pthread_create(&t, NULL, thread, &stop));
	mf_await("thread-set");
	SYS(pipe(p));		/* to the process, by a real-time signal */
	SYS(fcntl(p[0], F_SETSIG, SIGRTMIN + 1));
	SYS(fcntl(p[0], F_SETOWN, getpid()));
	SYS(fcntl(p[0], F_SETFL, O_ASYNC));
	SYS(pipe(q));		/* to one thread */
	own.type = F_OWNER_TID;
	own.pid = tid;
	SYS(fcntl(q[0], F_SETSIG, SIGRTMIN + 2));
	SYS(fcntl(q[0], F_SETOWN_EX, &own));
	SYS(fcntl(q[0], F_SETFL, O_ASYNC));
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sk));	/* to the group, by SIGIO */
	SYS(fcntl(sk[0], F_SETOWN, -getpgrp()));
	SYS(fcntl(sk[0], F_SETFL, O_ASYNC | O_NONBLOCK));
	SYS(pipe(plain));	/* an owner, but nothing is sent */
	SYS(fcntl(plain[0], F_SETOWN, getpid()));
	SYS(fcntl(plain[0], F_SETSIG, SIGUSR1));
	conf_ready();
	conf_wait_eintr();
	SAME(got[SIGIO] + got[SIGRTMIN + 1] + got[SIGRTMIN + 2] + got[SIGUSR1], 0);
	SAME(fcntl(p[0], F_GETOWN), getpid());
	SAME(fcntl(p[0], F_GETSIG), SIGRTMIN + 1);
	SAME(fcntl(p[0], F_GETFL), O_RDONLY | O_ASYNC);
	OK(fcntl(q[0], F_GETOWN_EX, &own));
	SAME(own.type, F_OWNER_TID);
	SAME(own.pid, tid);
	OK(fcntl(sk[0], F_GETOWN_EX, &own));
	SAME(own.type, F_OWNER_PGRP);
	SAME(own.pid, getpgrp());
	SAME(fcntl(sk[0], F_GETFL), O_RDWR | O_ASYNC | O_NONBLOCK);
	SAME(fcntl(plain[0], F_GETOWN), getpid());
	SAME(fcntl(plain[0], F_GETSIG), SIGUSR1);
	SAME(write(p[1], "x", 1), 1);
	UNTIL(got[SIGRTMIN + 1] == 1, "the real-time signal");
	SAME(got_fd[SIGRTMIN + 1], p[0]);
	SAME(write(q[1], "x", 1), 1);
	UNTIL(got[SIGRTMIN + 2] == 1, "the thread's signal");
	SAME(got_fd[SIGRTMIN + 2], q[0]);
	SAME(write(sk[1], "x", 1), 1);
	UNTIL(got[SIGIO] == 1, "SIGIO");
	SAME(write(plain[1], "x", 1), 1);
	conf_sleep_ms(5);
	SAME(got[SIGUSR1], 0);
	*(volatile int *)&stop = 1;
	PT(pthread_join(t, NULL));
	conf_pass();
}
