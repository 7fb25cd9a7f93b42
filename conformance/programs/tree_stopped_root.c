// kind: trees
// state: the root of the tree itself is stopped; a child of it is not, and continues it
// users: root nobody
// mutate: task_core_entry.task_state=1|fermata.task_extra.stop_signal
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

int main(int argc, char **argv)
{
	volatile int *sh;
	pid_t child;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	child = SYS(fork());
	if (child == 0) {
		UNTIL(conf_task_state(getppid()) == 'T', "the parent to stop");
		conf_ready();
		conf_wait();
		conf_sleep_ms(30);
		SAME(conf_task_state(getppid()), 'T');
		SAME(sh[0], 0);
		sh[1] = 1;
		OK(kill(getppid(), SIGCONT));
		_exit(0);
	}
	SYS(raise(SIGSTOP));
	sh[0] = 1;
	CHECK(sh[1], "the stop ended before it was continued");
	conf_reap_ok(child);
	conf_pass();
}
