// kind: trees
// state: a child that its tracer, who has not seized it, lets run
// users: root nobody
// refused: runs under its tracer
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
		SYS(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
		raise(SIGSTOP);
		sh[0] = 1;
		while (!sh[1])
			conf_sleep_ms(1);
		_exit(4);
	}
	SAME(SYS(waitpid(pid, &st, 0)), pid);
	SYS(ptrace(PTRACE_CONT, pid, NULL, NULL));
	UNTIL(sh[0], "the child");
	conf_ready();
	conf_wait();
	sh[1] = 1;
	SAME(OK(waitpid(pid, &st, 0)), pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 4, "the child ended with %#x", st);
	conf_pass();
}
