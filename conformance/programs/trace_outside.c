// kind: trees
// state: traced by a process outside the tree
// users: root nobody
// refused: already traced
#include "conformance.h"
#include <sys/ptrace.h>

int main(int argc, char **argv)
{
	volatile int *sh;
	pid_t pid, self = getpid();

	conf_init(argc, argv);
	sh = conf_shared(4096);
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	pid = SYS(fork());
	if (pid == 0) {
		if (SYS(fork()))
			_exit(0);
		/* A signal would stop it: that of our parent's end is past. */
		UNTIL(sh[2] && conf_task_state(self) == 'S', "being an orphan");
		SYS(ptrace(PTRACE_SEIZE, self, NULL, NULL));
		sh[0] = 1;
		while (!sh[1])
			conf_sleep_ms(1);
		_exit(0); /* which lets go of it */
	}
	SAME(SYS(waitpid(pid, NULL, 0)), pid);
	sh[2] = 1;
	UNTIL(sh[0], "the tracer");
	conf_ready();
	conf_wait();
	sh[1] = 1;
	conf_pass();
}
