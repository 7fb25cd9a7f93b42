// kind: trees
// state: a child that was stopped and continued, which its parent has not asked for yet
// users: root nobody
// modes: left
#include "conformance.h"

/*
 * The kernel has no way to make a task "continued" but SIGCONT; a restore may
 * lose the report, being left running must not.
 */
int main(int argc, char **argv)
{
	volatile int *end;
	pid_t pid;
	int st;

	conf_init(argc, argv);
	end = conf_shared(4096);
	pid = SYS(fork());
	if (pid == 0) {
		while (!*end)
			conf_sleep_ms(1);
		_exit(5);
	}
	SYS(kill(pid, SIGSTOP));
	UNTIL(conf_task_state(pid) == 'T', "the stop");
	SAME(SYS(waitpid(pid, &st, WUNTRACED)), pid);
	SYS(kill(pid, SIGCONT));
	UNTIL(conf_task_state(pid) != 'T', "the child to go on");
	conf_ready();
	conf_wait();
	SAME(OK(waitpid(pid, &st, WCONTINUED | WNOHANG)), pid);
	CHECK(WIFCONTINUED(st), "reported as %#x, not as continued", st);
	*end = 1;
	SAME(OK(waitpid(pid, &st, 0)), pid);
	conf_pass();
}
