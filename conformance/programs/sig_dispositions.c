// kind: signals
// state: dispositions of all signals: handlers, flags, masks, restorer, ignored, default
// users: root nobody
// mutate: sa_entry sa_entry.flags sa_entry.mask sa_entry.restorer
#include "conformance.h"

struct ksigaction {
	unsigned long handler, flags, restorer, mask;
};

static volatile int caught, caught_value;

static void plain(int sig)
{
	caught = sig;
}

static void with_info(int sig, siginfo_t *si, void *ctx)
{
	caught = sig;
	caught_value = si->si_value.sival_int;
}

/* What the C library would install: a call of rt_sigreturn. */
void restorer_a(void), restorer_b(void);
asm(".text\n"
    ".balign 16\nnop\n.type restorer_a,@function\nrestorer_a: mov $15,%eax\n	syscall\n.size restorer_a,.-restorer_a\n"
    ".balign 16\nnop\n.type restorer_b,@function\nrestorer_b: mov $15,%eax\n	syscall\n.size restorer_b,.-restorer_b\n");

#define KSA_RESTORER 0x04000000
#define KSA_EXPOSE_TAGBITS 0x00000800

static struct ksigaction want[65];

static void choose(int sig, struct ksigaction *a)
{
	static const unsigned long flags[] = {
		0, SA_SIGINFO, SA_RESTART, SA_ONSTACK | SA_SIGINFO, SA_NODEFER, SA_RESETHAND, SA_NOCLDSTOP, SA_NOCLDWAIT | SA_SIGINFO,
		SA_RESTART | SA_SIGINFO | SA_ONSTACK | SA_NODEFER, KSA_EXPOSE_TAGBITS | SA_SIGINFO,
	};

	memset(a, 0, sizeof(*a));
	switch (sig % 7) {
	case 0:
		a->handler = (unsigned long)SIG_IGN;
		break;
	case 3:
		a->handler = (unsigned long)SIG_DFL;
		break;
	default:
		a->flags = flags[sig % 10] | KSA_RESTORER;
		a->handler = a->flags & SA_SIGINFO ? (unsigned long)with_info : (unsigned long)plain;
		a->restorer = (unsigned long)(sig % 2 ? restorer_a : restorer_b);
		a->mask = 0x0101010101010101UL << (sig % 8);
	}
}

int main(int argc, char **argv)
{
	struct ksigaction now;
	union sigval v = { .sival_int = 4711 };
	int sig;

	conf_init(argc, argv);
	for (sig = 1; sig <= 64; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		choose(sig, &want[sig]);
		SYS(syscall(SYS_rt_sigaction, sig, &want[sig], NULL, 8));
		SYS(syscall(SYS_rt_sigaction, sig, NULL, &want[sig], 8));
	}
	/* Not ignored for good, but for the time of the checkpoint. */
	conf_ready();
	conf_wait();
	for (sig = 1; sig <= 64; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		OK(syscall(SYS_rt_sigaction, sig, NULL, &now, 8));
		CHECK(!memcmp(&now, &want[sig], sizeof(now)),
		      "signal %d: handler %#lx flags %#lx restorer %#lx mask %#lx, not %#lx %#lx %#lx %#lx", sig, now.handler, now.flags,
		      now.restorer, now.mask, want[sig].handler, want[sig].flags, want[sig].restorer, want[sig].mask);
	}
	for (sig = 1; sig <= 64; sig++) {
		/* SA_ONSTACK without a stack is the ordinary stack. */
		if (want[sig].handler < 2)
			continue;
		caught = 0;
		OK(sigqueue(getpid(), sig, v));
		SAME(caught, sig);
		if (want[sig].handler == (unsigned long)with_info)
			SAME(caught_value, 4711);
	}
	conf_pass();
}
