// kind: notification
// state: pidfds: of a child, of the program itself, of a zombie, of a process that was reaped; non-blocking, in an epoll
// users: root nobody
// mutate: pidfd_entry.nspid pidfd_entry
// nouser: it looks itself up in /proc, which shows other pids
#include "memfile.h"
#include <sys/epoll.h>

#define PIDFD_OPEN(pid, flags) ((int)syscall(SYS_pidfd_open, pid, flags))
#define PIDFD_SEND(fd, sig) syscall(SYS_pidfd_send_signal, fd, sig, NULL, 0)
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static volatile sig_atomic_t got;

static void on_usr1(int sig)
{
	got++;
}

static void sleeper(void)
{
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int child, self, dead, gone, ep;
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = 9 };
	siginfo_t si;
	pid_t pid, zombie, reaped;
	char val[32];

	conf_init(argc, argv);
	signal(SIGUSR1, on_usr1);
	pid = mf_spawn(sleeper);
	child = SYS(PIDFD_OPEN(pid, O_NONBLOCK));
	self = SYS(PIDFD_OPEN(getpid(), 0));
	zombie = SYS(fork());
	if (!zombie)
		_exit(7);
	dead = SYS(PIDFD_OPEN(zombie, 0));
	reaped = SYS(fork());
	if (!reaped)
		_exit(8);
	gone = SYS(PIDFD_OPEN(reaped, 0));
	waitpid(reaped, NULL, 0);
	UNTIL(conf_task_state(zombie) == 'Z', "a zombie");
	ep = SYS(epoll_create1(0));
	SYS(epoll_ctl(ep, EPOLL_CTL_ADD, child, &e));
	conf_ready();
	conf_wait();
	SAME(fcntl(child, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	SAME(fcntl(child, F_GETFD), FD_CLOEXEC);
	CHECK(mf_fdinfo(child, "Pid", val, sizeof(val)) && atoi(val) == pid, "the child's pidfd is of pid %s", val);
	CHECK(mf_fdinfo(self, "Pid", val, sizeof(val)) && atoi(val) == getpid(), "our own pidfd is of pid %s", val);
	SAME(mf_poll(child, POLLIN), 0);
	OK(PIDFD_SEND(self, SIGUSR1));
	SAME(got, 1);
	SAME(mf_poll(dead, POLLIN), POLLIN);
	OK(waitid(P_PIDFD, dead, &si, WEXITED));
	SAME(si.si_pid, zombie);
	SAME(si.si_status, 7);
	SAME(mf_poll(gone, POLLIN) & POLLIN, POLLIN);
	CHECK(PIDFD_SEND(gone, 0) < 0 && errno == ESRCH, "the reaped process can get signals");
	SAME(epoll_wait(ep, &e, 1, 0), 0);
	CHECK(waitid(P_PIDFD, child, &si, WEXITED) < 0 && errno == EAGAIN, "the non-blocking wait blocks");
	OK(PIDFD_SEND(child, SIGTERM));
	SAME(epoll_wait(ep, &e, 1, 5000), 1);
	SAME(e.data.u64, 9);
	OK(waitid(P_PIDFD, child, &si, WEXITED));
	SAME(si.si_status, SIGTERM);
	conf_pass();
}
