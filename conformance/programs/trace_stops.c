// kind: trees
// state: children held by their tracer: with a signal (reported or not yet, blocked, queued, SIGSTOP), before and behind system calls, at a breakpoint of the processor, after a single step, by PTRACE_INTERRUPT; seized, attached to, or by PTRACE_TRACEME
// users: root nobody
// mutate: fermata.traced.stop=4
// mutate: fermata.traced.siginfo
// mutate: fermata.traced.options=0
// mutate: fermata.traced.unreported
// mutate: fermata.traced.debug
// nocriu: it saves no task that is traced
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <sys/ptrace.h>
#include <sys/user.h>

#define TRACEME 0
#define SEIZE 1
#define ATTACH 2

enum how { BY_QUEUED, BY_TRAP, BY_STOP, BY_UNTOLD, AT_ENTRY, AT_EXIT, BY_WATCH, BY_STEP, BY_ASKING, HOWS };

static struct tracee {
	enum how how;
	int by;
	pid_t pid;
	int status;
	siginfo_t si;
	unsigned long message;
	struct user_regs_struct regs;
	uint64_t mask;
} all[] = {
	{ BY_QUEUED, TRACEME }, { BY_QUEUED, SEIZE }, { BY_TRAP, TRACEME }, { BY_TRAP, SEIZE },
	{ BY_STOP, TRACEME }, { BY_STOP, SEIZE }, { BY_STOP, ATTACH }, { BY_UNTOLD, TRACEME }, { BY_UNTOLD, SEIZE },
	{ AT_ENTRY, TRACEME }, { AT_ENTRY, SEIZE }, { AT_EXIT, TRACEME }, { AT_EXIT, ATTACH },
	{ BY_WATCH, TRACEME }, { BY_STEP, SEIZE }, { BY_ASKING, SEIZE },
};
#define N (int)(sizeof(all) / sizeof(all[0]))

static volatile struct shared {
	int ready[64], go[64], handled[64], value[64], seen[64];
} *sh;
static int me;
static volatile int watched;

static void handler(int sig, siginfo_t *si, void *uc)
{
	sh->handled[me] = sig;
	sh->value[me] = si->si_value.sival_int;
}

/* A child works up to where it is held, and on from there. */
static __attribute__((noreturn)) void child(int i)
{
	struct sigaction sa = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
	union sigval v = { .sival_int = 4711 };

	me = i;
	sigaction(SIGRTMIN + 2, &sa, NULL);
	if (all[i].by == TRACEME)
		SYS(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	sh->ready[i] = 1;
	while (!sh->go[i])
		sched_yield();
	if (all[i].by == TRACEME && all[i].how != BY_STOP)
		raise(SIGSTOP); /* so that it can be led on */
	switch (all[i].how) {
	case BY_QUEUED:
	case BY_UNTOLD:
		sigqueue(getpid(), SIGRTMIN + 2, v);
		break;
	case BY_TRAP:
		__asm__ volatile("int3");
		break;
	case BY_STOP:
		raise(SIGSTOP);
		break;
	case AT_ENTRY:
	case AT_EXIT:
		sh->value[i] = syscall(SYS_getppid);
		break;
	case BY_WATCH:
		watched = 3;
		break;
	case BY_STEP:
	case BY_ASKING:
		while (sh->go[i] < 2)
			;
		break;
	default:
		break;
	}
	sh->seen[i] = 1;
	_exit(40 + i);
}

static void wait_for(struct tracee *t, int what)
{
	SAME(SYS(waitpid(t->pid, &t->status, __WALL)), t->pid);
	CHECK(WIFSTOPPED(t->status), "set-up: child %d has not stopped: %#x", t->how, t->status);
	if (what)
		SAME(t->status >> 8, what);
}

static void hold(struct tracee *t, int i)
{
	long opts = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;

	t->pid = SYS(fork());
	if (t->pid == 0)
		child(i);
	UNTIL(sh->ready[i], "the child");
	if (t->by == SEIZE) {
		SYS(ptrace(PTRACE_SEIZE, t->pid, NULL, opts));
		if (t->how != BY_QUEUED && t->how != BY_TRAP && t->how != BY_STOP && t->how != BY_UNTOLD) {
			SYS(ptrace(PTRACE_INTERRUPT, t->pid, NULL, NULL));
			wait_for(t, SIGTRAP | 128 << 8);
		}
	} else if (t->by == ATTACH) {
		SYS(ptrace(PTRACE_ATTACH, t->pid, NULL, NULL));
		wait_for(t, SIGSTOP);
		SYS(ptrace(PTRACE_SETOPTIONS, t->pid, NULL, opts));
		if (t->how == BY_STOP)
			SYS(ptrace(PTRACE_CONT, t->pid, NULL, NULL));
	}
	sh->go[i] = 1;
	if (t->by == TRACEME && t->how != BY_STOP) {
		wait_for(t, SIGSTOP);
		SYS(ptrace(PTRACE_SETOPTIONS, t->pid, NULL, opts));
		if (t->how == BY_WATCH) {
			SYS(ptrace(PTRACE_POKEUSER, t->pid, offsetof(struct user, u_debugreg[0]), &watched));
			SYS(ptrace(PTRACE_POKEUSER, t->pid, offsetof(struct user, u_debugreg[7]), 0xd0001));
		}
		if (t->how != AT_ENTRY && t->how != AT_EXIT)
			SYS(ptrace(PTRACE_CONT, t->pid, NULL, NULL));
	}
	switch (t->how) {
	case BY_QUEUED:
		wait_for(t, SIGRTMIN + 2);
		break;
	case BY_TRAP:
	case BY_WATCH:
		wait_for(t, SIGTRAP);
		break;
	case BY_STOP:
		wait_for(t, SIGSTOP);
		break;
	case BY_UNTOLD:
		UNTIL(conf_task_state(t->pid) == 't', "the stop");
		break;
	case AT_ENTRY:
	case AT_EXIT:
		/* Up to the call that is meant, past those of raise and sched_yield. */
		do {
			SYS(ptrace(PTRACE_SYSCALL, t->pid, NULL, NULL));
			wait_for(t, SIGTRAP | 0x80);
			SYS(ptrace(PTRACE_GETREGS, t->pid, NULL, &t->regs));
		} while (t->regs.orig_rax != SYS_getppid);
		if (t->how == AT_EXIT) {
			SYS(ptrace(PTRACE_SYSCALL, t->pid, NULL, NULL));
			wait_for(t, SIGTRAP | 0x80);
		}
		break;
	case BY_STEP:
		SYS(ptrace(PTRACE_SINGLESTEP, t->pid, NULL, NULL));
		wait_for(t, SIGTRAP);
		break;
	default:
		break;
	}
	SYS(ptrace(PTRACE_GETSIGINFO, t->pid, NULL, &t->si));
	SYS(ptrace(PTRACE_GETEVENTMSG, t->pid, NULL, &t->message));
	SYS(ptrace(PTRACE_GETREGS, t->pid, NULL, &t->regs));
	SYS(ptrace(PTRACE_GETSIGMASK, t->pid, 8, &t->mask));
}

static void same(struct tracee *t, int i)
{
	struct user_regs_struct regs;
	unsigned long message, d7;
	uint64_t mask;
	siginfo_t si, w = { 0 };
	int st;

	OK(waitid(P_PID, t->pid, &w, WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL));
	if (t->how == BY_UNTOLD) {
		SAME(w.si_pid, t->pid);
		SAME(OK(waitpid(t->pid, &st, __WALL)), t->pid);
		SAME(st >> 8, SIGRTMIN + 2);
	} else {
		CHECK(w.si_pid == 0, "child %d reports code %d, status %#x", i, w.si_code, w.si_status);
	}
	OK(ptrace(PTRACE_GETREGS, t->pid, NULL, &regs));
	CHECK(memcmp(&regs, &t->regs, sizeof(regs)) == 0, "child %d: rip %#llx, was %#llx; rax %#llx, was %#llx; orig_rax %lld, was %lld", i,
	      regs.rip, t->regs.rip, regs.rax, t->regs.rax, regs.orig_rax, t->regs.orig_rax);
	OK(ptrace(PTRACE_GETSIGINFO, t->pid, NULL, &si));
	CHECK(memcmp(&si, &t->si, sizeof(si)) == 0, "child %d: signal %d code %d value %d, was %d, %d, %d", i, si.si_signo, si.si_code,
	      si.si_value.sival_int, t->si.si_signo, t->si.si_code, t->si.si_value.sival_int);
	OK(ptrace(PTRACE_GETEVENTMSG, t->pid, NULL, &message));
	SAME(message, t->message);
	OK(ptrace(PTRACE_GETSIGMASK, t->pid, 8, &mask));
	SAME(mask, t->mask);
	if (t->how == BY_WATCH) {
		errno = 0;
		SAME(ptrace(PTRACE_PEEKUSER, t->pid, offsetof(struct user, u_debugreg[0]), NULL), (long)&watched);
		d7 = ptrace(PTRACE_PEEKUSER, t->pid, offsetof(struct user, u_debugreg[7]), NULL);
		SAME(d7 & 0xd0001, 0xd0001);
	}
}

static void go_on(struct tracee *t, int i)
{
	int sig = t->how == BY_QUEUED || t->how == BY_UNTOLD ? SIGRTMIN + 2 : 0, st;

	sh->go[i] = 2;
	if (t->how == AT_ENTRY) {
		OK(ptrace(PTRACE_SYSCALL, t->pid, NULL, NULL));
		SAME(OK(waitpid(t->pid, &st, __WALL)), t->pid);
		/* The bit says that the options are those that were set. */
		SAME(st >> 8, SIGTRAP | 0x80);
	}
	if (t->how == AT_EXIT) {
		OK(ptrace(PTRACE_SYSCALL, t->pid, NULL, NULL));
		SAME(OK(waitpid(t->pid, &st, __WALL)), t->pid);
		SAME(st >> 8, SIGTRAP | 0x80);
	}
	OK(ptrace(PTRACE_CONT, t->pid, NULL, sig));
	SAME(OK(waitpid(t->pid, &st, __WALL)), t->pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 40 + i, "child %d: %#x", i, st);
	SAME(sh->seen[i], 1);
	SAME(sh->handled[i], sig);
	if (sig)
		SAME(sh->value[i], 4711);
	if (t->how == AT_ENTRY || t->how == AT_EXIT)
		SAME(sh->value[i], getpid());
}

int main(int argc, char **argv)
{
	conf_init(argc, argv);
	sh = conf_shared(4096);
	for (int i = 0; i < N; i++)
		hold(&all[i], i);
	conf_ready();
	conf_wait();
	for (int i = 0; i < N; i++)
		same(&all[i], i);
	for (int i = 0; i < N; i++)
		go_on(&all[i], i);
	conf_pass();
}
