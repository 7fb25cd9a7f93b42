// kind: task
// state: parent-death signals: set in two children, delivered when the parent ends
// users: root nobody
// mutate: thread_core_entry.pdeath_sig
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

/*
 * root -- parent -- child with SIGKILL, child with SIGUSR1: the parent ends
 * after go, and the children must notice. The root adopts them.
 */
static volatile int caught;

static void handler(int sig)
{
	caught = sig;
}

int main(int argc, char **argv)
{
	volatile pid_t *pids;
	pid_t parent;
	int st, i, sig;

	conf_init(argc, argv);
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pids = conf_shared(4096);
	parent = SYS(fork());
	if (parent == 0) {
		for (i = 0; i < 2; i++) {
			if (SYS(fork()) == 0) {
				signal(SIGUSR1, handler);
				SYS(prctl(PR_SET_PDEATHSIG, i ? SIGUSR1 : SIGKILL));
				pids[i] = getpid();
				conf_wait_eintr();
				OK(prctl(PR_GET_PDEATHSIG, &sig));
				SAME(sig, i ? SIGUSR1 : SIGKILL);
				pids[2 + i] = 1;
				UNTIL(caught, "the parent-death signal");
				_exit(7);
			}
		}
		conf_wait();
		UNTIL(pids[2] && pids[3], "the children");
		_exit(0);
	}
	UNTIL(pids[0] && pids[1], "the children");
	conf_ready();
	conf_wait();
	conf_reap_ok(parent);
	SAME(OK(waitpid(pids[0], &st, 0)), pids[0]);
	CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL, "the first child ended with %#x", st);
	SAME(OK(waitpid(pids[1], &st, 0)), pids[1]);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 7, "the second child ended with %#x", st);
	conf_pass();
}
