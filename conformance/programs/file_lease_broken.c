// kind: locks
// state: file leases that others are waiting for: their holder has had the signal and has not answered yet; what is to become of each
// users: root nobody
// mutate: file_lock_entry file_lock_entry.type
#include "memfile.h"

static volatile sig_atomic_t got;

static void on_signal(int sig, siginfo_t *si, void *uc)
{
	got++;
}

static pid_t opener(const char *name, int how)
{
	pid_t pid = SYS(fork());

	if (pid == 0) {
		signal(SIGRTMIN, SIG_IGN);
		OK(open(name, how));
		_exit(0);
	}
	UNTIL(conf_in_syscall(pid, SYS_openat), "the opener");
	return pid;
}

static int leased(const char *name, int how, int type)
{
	int fd;

	mf_file(name, 10, 1);
	fd = SYS(open(name, how | O_CLOEXEC));
	SYS(fcntl(fd, F_SETSIG, SIGRTMIN));
	SYS(fcntl(fd, F_SETLEASE, type));
	return fd;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	int w, x, r;
	pid_t a, b, c;

	conf_init(argc, argv);
	SYS(sigaction(SIGRTMIN, &sa, NULL));
	w = leased("w", O_RDONLY, F_WRLCK);
	x = leased("x", O_RDWR, F_WRLCK);
	r = leased("r", O_RDONLY, F_RDLCK);
	a = opener("w", O_RDONLY);
	b = opener("x", O_WRONLY);
	c = opener("r", O_WRONLY);
	UNTIL(got == 3, "the signals");
	conf_ready();
	conf_wait_eintr();
	SAME(got, 3);
	SAME(fcntl(w, F_GETLEASE), F_RDLCK);
	SAME(fcntl(x, F_GETLEASE), F_UNLCK);
	SAME(fcntl(r, F_GETLEASE), F_UNLCK);
	SAME(OK(waitpid(-1, NULL, WNOHANG)), 0);
	OK(fcntl(w, F_SETLEASE, F_RDLCK));
	conf_reap_ok(a);
	SAME(fcntl(w, F_GETLEASE), F_RDLCK);
	OK(fcntl(x, F_SETLEASE, F_UNLCK));
	conf_reap_ok(b);
	OK(fcntl(r, F_SETLEASE, F_UNLCK));
	conf_reap_ok(c);
	SAME(got, 3);
	conf_pass();
}
