// kind: signals
// state: as many realtime signals queued as the limit admits (RLIMIT_SIGPENDING), blocked, each with its value
// users: root nobody
// mutate: siginfo_entry
#include "conformance.h"

int main(int argc, char **argv)
{
	struct rlimit l;
	char used[64];
	struct timespec now = { 0, 0 };
	sigset_t all;
	siginfo_t si;
	int n = 0;

	conf_init(argc, argv);
	sigfillset(&all);
	SYS(sigprocmask(SIG_BLOCK, &all, NULL));
	conf_status_field(getpid(), "SigQ", used, sizeof(used)); /* of the whole user */
	l.rlim_cur = l.rlim_max = atol(used) + 2000; /* others may queue some meanwhile */
	SYS(setrlimit(RLIMIT_SIGPENDING, &l));
	while (sigqueue(getpid(), SIGRTMIN + 1 + n % 2, (union sigval){ .sival_int = n }) == 0)
		n++;
	CHECK(errno == EAGAIN && n > 100, "set-up: %d signals: %s", n, strerror(errno));
	conf_ready();
	conf_wait();
	for (int sig = 0; sig < 2; sig++)
		for (int i = sig; i < n; i += 2) {
			sigset_t one;

			sigemptyset(&one);
			sigaddset(&one, SIGRTMIN + 1 + sig);
			SAME(OK(sigtimedwait(&one, &si, &now)), SIGRTMIN + 1 + sig);
			SAME(si.si_value.sival_int, i);
			SAME(si.si_code, SI_QUEUE);
		}
	CHECK(sigtimedwait(&all, &si, &now) < 0 && errno == EAGAIN, "signal %d is left", si.si_signo);
	conf_pass();
}
