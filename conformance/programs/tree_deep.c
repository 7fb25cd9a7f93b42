// kind: trees
// state: a chain of forty processes, each the child of the one before
// users: root nobody
// mutate: pstree_entry.ppid=0
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

#define DEPTH 40

int main(int argc, char **argv)
{
	volatile pid_t *pids;
	int depth = 0;
	pid_t child = 0;

	conf_init(argc, argv);
	pids = conf_shared(4096);
	pids[0] = getpid();
	while (depth < DEPTH) {
		child = SYS(fork());
		if (child)
			break;
		depth++;
		pids[depth] = getpid();
	}
	if (depth == 0) {
		UNTIL(pids[DEPTH], "the last one");
		conf_ready();
	}
	conf_wait();
	SAME(getpid(), pids[depth]);
	if (depth)
		SAME(getppid(), pids[depth - 1]);
	if (depth < DEPTH)
		conf_reap_ok(child);
	if (depth == 0)
		conf_pass();
	_exit(0);
}
