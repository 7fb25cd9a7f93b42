// kind: locks
// state: file leases for reading and for writing: held still, and broken by an open with the signal asked for
// users: root nobody
// mutate: file_lock_entry.type file_lock_entry
// nocriu: left: opens the leased file and so breaks the lease
#include "memfile.h"

static volatile sig_atomic_t got, got_fd;

static void on_signal(int sig, siginfo_t *si, void *uc)
{
	got++;
	got_fd = si->si_fd;
}

static void opener(void)
{
	OK(open("w", O_RDONLY));
	OK(open("r", O_WRONLY));
}

static void peaceful(void)
{
	OK(open("r", O_RDONLY));
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	int w, r;
	pid_t pid;

	conf_init(argc, argv);
	SYS(sigaction(SIGRTMIN, &sa, NULL));
	mf_file("w", 10, 1);
	mf_file("r", 10, 1);
	w = SYS(open("w", O_RDWR));
	r = SYS(open("r", O_RDONLY));
	SYS(fcntl(w, F_SETSIG, SIGRTMIN));
	SYS(fcntl(w, F_SETLEASE, F_WRLCK));
	SYS(fcntl(r, F_SETSIG, SIGRTMIN));
	SYS(fcntl(r, F_SETLEASE, F_RDLCK));
	conf_ready();
	conf_wait_eintr();
	SAME(got, 0);
	SAME(fcntl(w, F_GETLEASE), F_WRLCK);
	SAME(fcntl(r, F_GETLEASE), F_RDLCK);
	pid = mf_spawn(peaceful);
	conf_reap_ok(pid);
	SAME(got, 0);
	pid = mf_spawn(opener);
	UNTIL(got == 1, "the signal that breaks the lease for writing");
	SAME(got_fd, w);
	OK(fcntl(w, F_SETLEASE, F_UNLCK));
	UNTIL(got == 2, "the signal that breaks the lease for reading");
	SAME(got_fd, r);
	OK(fcntl(r, F_SETLEASE, F_UNLCK));
	conf_reap_ok(pid);
	conf_pass();
}
