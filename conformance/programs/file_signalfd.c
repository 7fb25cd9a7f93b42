// kind: notification
// state: signalfd: its mask, signals pending that are read through it afterwards, one asleep in it
// users: root nobody
// mutate: signalfd_entry.sigmask siginfo_entry
#include "memfile.h"
#include <sys/signalfd.h>

static int fd;

static void child(void)
{
	struct signalfd_siginfo si;

	/* The signals are those of who reads. */
	SAME(read(fd, &si, sizeof(si)), sizeof(si));
	SAME(si.ssi_signo, SIGUSR2);
	SAME(si.ssi_pid, getppid());
}

int main(int argc, char **argv)
{
	struct signalfd_siginfo si;
	union sigval v = { .sival_int = 12345 };
	sigset_t set;
	pid_t pid;
	int other;

	conf_init(argc, argv);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGRTMIN + 3);
	SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	fd = SYS(signalfd(-1, &set, SFD_CLOEXEC));
	sigdelset(&set, SIGUSR1);
	sigdelset(&set, SIGUSR2);
	other = SYS(signalfd(-1, &set, SFD_NONBLOCK));
	pid = mf_spawn(child);
	UNTIL(conf_in_syscall(pid, SYS_read), "the child to sleep in read");
	SYS(kill(getpid(), SIGUSR1));
	SYS(sigqueue(getpid(), SIGRTMIN + 3, v));
	v.sival_int++;
	SYS(sigqueue(getpid(), SIGRTMIN + 3, v));
	conf_ready();
	conf_wait();
	SAME(fcntl(fd, F_GETFD), FD_CLOEXEC);
	SAME(fcntl(other, F_GETFL), O_RDWR | O_NONBLOCK);
	SAME(read(fd, &si, sizeof(si)), sizeof(si));
	SAME(si.ssi_signo, SIGUSR1);
	SAME(si.ssi_pid, getpid());
	SAME(si.ssi_uid, getuid());
	for (int i = 0; i < 2; i++) {
		SAME(read(other, &si, sizeof(si)), sizeof(si));
		SAME(si.ssi_signo, SIGRTMIN + 3);
		SAME(si.ssi_code, SI_QUEUE);
		SAME(si.ssi_int, 12345 + i);
	}
	CHECK(read(other, &si, sizeof(si)) < 0 && errno == EAGAIN, "there are more signals");
	OK(kill(pid, SIGUSR2));
	conf_reap_ok(pid);
	conf_pass();
}
