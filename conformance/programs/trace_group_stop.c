// kind: trees
// state: a traced child in a job-control stop
// users: root nobody
// refused: in a job-control stop
#include "conformance.h"
#include <sys/ptrace.h>

int main(int argc, char **argv)
{
	volatile int *sh;
	pid_t pid;
	int st;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	pid = SYS(fork());
	if (pid == 0) {
		while (!sh[0])
			conf_sleep_ms(1);
		_exit(4);
	}
	SYS(ptrace(PTRACE_SEIZE, pid, NULL, NULL));
	SYS(kill(pid, SIGSTOP));
	SAME(SYS(waitpid(pid, &st, 0)), pid);
	SYS(ptrace(PTRACE_CONT, pid, NULL, SIGSTOP));
	SAME(SYS(waitpid(pid, &st, 0)), pid);
	SAME(st >> 8, SIGSTOP | 128 << 8);
	conf_ready();
	conf_wait();
	sh[0] = 1;
	SYS(ptrace(PTRACE_CONT, pid, NULL, 0));
	OK(kill(pid, SIGCONT));
	for (;;) {
		SAME(OK(waitpid(pid, &st, 0)), pid);
		if (!WIFSTOPPED(st))
			break;
		OK(ptrace(PTRACE_CONT, pid, NULL, 0));
	}
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 4, "the child ended with %#x", st);
	conf_pass();
}
