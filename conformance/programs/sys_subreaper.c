// kind: task
// state: child subreaper: orphans made after the restore come to it; a child's flag is its own
// users: root nobody
// mutate: task_core_entry.child_subreaper
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

int main(int argc, char **argv)
{
	int on, st, i;
	volatile pid_t *orphan;
	pid_t child;

	conf_init(argc, argv);
	orphan = conf_shared(4096);
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	child = SYS(fork());
	if (child == 0) {
		conf_wait();
		OK(prctl(PR_GET_CHILD_SUBREAPER, &on));
		SAME(on, 0);
		for (i = 0; i < 2; i++) {
			if (OK(fork()) == 0) {
				if (i == 0) {
					orphan[0] = getpid();
					UNTIL(getppid() == (pid_t)(long)orphan[1], "the subreaper to adopt us");
				}
				_exit(3);
			}
			if (i == 1)
				OK(wait(&st) > 0 ? 0 : -1);
		}
		_exit(0);
	}
	orphan[1] = getpid();
	conf_ready();
	conf_wait();
	OK(prctl(PR_GET_CHILD_SUBREAPER, &on));
	SAME(on, 1);
	UNTIL(orphan[0], "the orphan");
	for (i = 0; i < 2; i++) {
		pid_t r = OK(wait(&st));

		if (r == child)
			SAME(st, 0);
		else
			CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 3, "%d ended with %#x", r, st);
	}
	conf_pass();
}
