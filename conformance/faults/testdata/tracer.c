// A tracer with three tracees, for fermata to be killed at: one held with a
// signal, one that sleeps in a read up to whose end it runs, one that computes.
// Progress and errors are counted in the page that argv[1] names.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile unsigned long *page; // progress, errors, breaks that any stop makes, the last error's line
static volatile long *sh;
static int in[2], out[2];

#define WRONG(cond)                                                        \
	do {                                                               \
		if (cond) {                                                \
			page[1]++;                                         \
			page[3] = __LINE__;                                \
			fprintf(stderr, "line %d: %s, errno %d, status %#x\n", __LINE__, #cond, errno, st); \
		}                                                          \
	} while (0)

static pid_t child(void (*f)(void))
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	f();
	_exit(1);
}

static void held(void)
{
	union sigval v = { .sival_int = 17 };

	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	sigqueue(getpid(), SIGRTMIN + 2, v);
}

static void reader(void)
{
	char b;

	while (!sh[0])
		usleep(1000);
	while (syscall(SYS_read, in[0], &b, 1L) == 1)
		if (syscall(SYS_write, out[1], &b, 1L) != 1)
			break;
}

static void computes(void)
{
	for (;;)
		sh[1]++;
}

int main(int argc, char **argv)
{
	int fd = open(argv[1], O_RDWR), st = 0, quiet;
	struct __ptrace_syscall_info info;
	struct user_regs_struct regs, now;
	pid_t a, b, c;
	siginfo_t si, was;
	long before;
	char x;

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	sh = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pipe(in) || pipe2(out, O_NONBLOCK))
		return 1;
	a = child(held);
	waitpid(a, &st, __WALL);
	ptrace(PTRACE_GETREGS, a, NULL, &regs);
	ptrace(PTRACE_GETSIGINFO, a, NULL, &was);
	b = child(reader);
	ptrace(PTRACE_SEIZE, b, NULL, PTRACE_O_TRACESYSGOOD);
	ptrace(PTRACE_INTERRUPT, b, NULL, NULL);
	waitpid(b, &st, __WALL);
	sh[0] = 1;
	ptrace(PTRACE_SYSCALL, b, NULL, NULL);
	do { // up to the entry of read
		waitpid(b, &st, __WALL);
		ptrace(PTRACE_GET_SYSCALL_INFO, b, sizeof(info), &info);
		ptrace(PTRACE_SYSCALL, b, NULL, NULL);
	} while (info.op != PTRACE_SYSCALL_INFO_ENTRY || info.entry.nr != SYS_read);
	c = child(computes);
	ptrace(PTRACE_SEIZE, c, NULL, NULL);

	for (;;) {
		// The one that is held stands as it stood.
		memset(&si, 0, sizeof(si));
		WRONG(waitid(P_PID, a, &si, WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL) || si.si_pid);
		WRONG(ptrace(PTRACE_GETREGS, a, NULL, &now) || memcmp(&now, &regs, sizeof(now)));
		WRONG(ptrace(PTRACE_GETSIGINFO, a, NULL, &si) || memcmp(&si, &was, sizeof(si)));

		// The one that computes goes on, and stops for nobody.
		before = sh[1];
		for (int i = 0; i < 20000 && sh[1] == before; i++) {
			usleep(1000);
			if (waitpid(c, &st, __WALL | WNOHANG) == c) {
				WRONG(st >> 8 != (SIGTRAP | 128 << 8));
				page[2]++;
				ptrace(PTRACE_CONT, c, NULL, NULL);
			}
		}
		WRONG(sh[1] == before);

		// The one that reads: the end of its read, the write, the next read.
		WRONG(write(in[1], "x", 1) != 1);
		static const struct { int op; long nr; } steps[] = {
			{ PTRACE_SYSCALL_INFO_EXIT, SYS_read }, { PTRACE_SYSCALL_INFO_ENTRY, SYS_write },
			{ PTRACE_SYSCALL_INFO_EXIT, SYS_write }, { PTRACE_SYSCALL_INFO_ENTRY, SYS_read },
		};
		quiet = 0;
		for (int i = 0; i < 4;) {
			WRONG(waitpid(b, &st, __WALL) != b);
			if (st >> 8 == (SIGTRAP | 128 << 8)) {
				page[2]++;
				ptrace(PTRACE_SYSCALL, b, NULL, NULL);
				continue;
			}
			WRONG(st >> 8 != (SIGTRAP | 0x80));
			memset(&info, 0, sizeof(info));
			WRONG(ptrace(PTRACE_GET_SYSCALL_INFO, b, sizeof(info), &info) < 0);
			if (info.op == PTRACE_SYSCALL_INFO_EXIT && info.exit.rval == -512) { // as after SIGSTOP and SIGCONT
				page[2]++;
				quiet = 1;
				ptrace(PTRACE_SYSCALL, b, NULL, NULL);
				continue;
			}
			if (quiet && info.op == PTRACE_SYSCALL_INFO_ENTRY && i % 2 == 0) { // the same call again
				quiet = 0;
				ptrace(PTRACE_SYSCALL, b, NULL, NULL);
				continue;
			}
			WRONG(info.op != steps[i].op);
			if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
				WRONG(info.entry.nr != (unsigned long)steps[i].nr);
			else
				WRONG(info.exit.rval != 1);
			WRONG(ptrace(PTRACE_SYSCALL, b, NULL, NULL));
			i++;
		}
		WRONG(read(out[0], &x, 1) != 1 || x != 'x');
		page[0]++;
		if (page[1] > 1000)
			return 1;
	}
}
