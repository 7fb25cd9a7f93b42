// kind: task
// state: system calls dispatched to user space (PR_SET_SYSCALL_USER_DISPATCH), as Wine does
// users: root nobody
// refused: dispatch
#include "conformance.h"

/* The selector says "allow" while the thread waits: only the setting is state. */
static volatile char selector;
static volatile int caught;

static void handler(int sig, siginfo_t *si, void *ctx)
{
	selector = 0;
	caught = si->si_syscall;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	conf_init(argc, argv);
	SYS(sigaction(SIGSYS, &sa, NULL));
	if (prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector) < 0)
		conf_skip("this kernel has no syscall user dispatch");
	conf_ready();
	conf_wait();
	selector = 1;
	syscall(SYS_getppid);
	SAME(caught, SYS_getppid);
	conf_pass();
}
