// kind: trees
// state: children that sleep while their tracer, who has seized them, lets them run: in a read, in a timed sleep, in epoll_wait, up to the next system call's end or on; what the tracer is told is what it would have been
// users: root nobody
// mutate: fermata.traced.to_syscall
// mutate: fermata.traced.options=0
// nocriu: it saves no task that is traced
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/user.h>

static int p[4][2];
static volatile struct { int ready[8], got[8]; } *sh;

static __attribute__((noreturn)) void child(int i)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct timespec t = { 1, 500000000 };
	int64_t began = conf_ns(CLOCK_REALTIME);
	char b = 0;
	int e;

	sh->ready[i] = 1;
	while (sh->ready[i] < 2)
		sched_yield();
	switch (i) {
	case 0:
	case 1:
		if (read(p[i][0], &b, 1) == 1)
			sh->got[i] = b;
		break;
	case 2:
		e = SYS(epoll_create1(0));
		SYS(epoll_ctl(e, EPOLL_CTL_ADD, p[i][0], &ev));
		if (epoll_wait(e, &ev, 1, -1) == 1)
			sh->got[i] = 'e';
		break;
	case 3:
		if (syscall(SYS_nanosleep, &t, NULL) == 0 && conf_lived_ms(began) < 5000)
			sh->got[i] = 's';
		break;
	}
	_exit(60 + i);
}

int main(int argc, char **argv)
{
	static const long calls[] = { SYS_read, SYS_read, SYS_epoll_wait, SYS_nanosleep };
	struct __ptrace_syscall_info info;
	struct user_regs_struct regs;
	pid_t pid[4];
	siginfo_t si;
	sigset_t chld;
	int i, st;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	/* A stop that the program does not know of would leave a SIGCHLD. */
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	for (i = 0; i < 4; i++) {
		SYS(pipe(p[i]));
		pid[i] = SYS(fork());
		if (pid[i] == 0)
			child(i);
		UNTIL(sh->ready[i] == 1, "the child");
		SYS(ptrace(PTRACE_SEIZE, pid[i], NULL, PTRACE_O_TRACESYSGOOD));
		SYS(ptrace(PTRACE_INTERRUPT, pid[i], NULL, NULL));
		SAME(SYS(waitpid(pid[i], &st, __WALL)), pid[i]);
		sh->ready[i] = 2;
		if (i == 1) {
			SYS(ptrace(PTRACE_CONT, pid[i], NULL, NULL));
			UNTIL(conf_task_state(pid[i]) == 'S', "the sleep");
			continue;
		}
		do { /* up to the entry of the call that is meant */
			SYS(ptrace(PTRACE_SYSCALL, pid[i], NULL, NULL));
			SAME(SYS(waitpid(pid[i], &st, __WALL)), pid[i]);
			SYS(ptrace(PTRACE_GETREGS, pid[i], NULL, &regs));
		} while ((long)regs.orig_rax != calls[i]);
		SYS(ptrace(PTRACE_SYSCALL, pid[i], NULL, NULL));
		UNTIL(conf_task_state(pid[i]) == 'S', "the sleep");
	}
	while (sigtimedwait(&chld, &si, &(struct timespec){ 0, 0 }) > 0)
		;
	conf_ready();
	conf_wait();
	if (sh->got[3] == 0 && conf_task_state(pid[3]) == 'S')
		CHECK(sigtimedwait(&chld, &si, &(struct timespec){ 0, 0 }) < 0, "SIGCHLD of pid %d, code %d, status %#x", si.si_pid, si.si_code, si.si_status);
	for (i = 0; i < 3; i++) {
		SAME(conf_task_state(pid[i]), 'S');
		SAME(OK(waitpid(pid[i], &st, __WALL | WNOHANG)), 0);
		SAME(OK(write(p[i][1], "x", 1)), 1);
	}
	for (i = 0; i < 4; i++) {
		if (i != 1) {
			/* The first that it hears of is the end of that call. */
			SAME(OK(waitpid(pid[i], &st, __WALL)), pid[i]);
			SAME(st >> 8, SIGTRAP | 0x80);
			OK(ptrace(PTRACE_GET_SYSCALL_INFO, pid[i], sizeof(info), &info));
			SAME(info.op, PTRACE_SYSCALL_INFO_EXIT);
			SAME(info.exit.rval, i == 3 ? 0 : 1);
			OK(ptrace(PTRACE_CONT, pid[i], NULL, NULL));
		}
		SAME(OK(waitpid(pid[i], &st, __WALL)), pid[i]);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 60 + i, "child %d: %#x", i, st);
		SAME(sh->got[i], "xxes"[i]);
	}
	conf_pass();
}
