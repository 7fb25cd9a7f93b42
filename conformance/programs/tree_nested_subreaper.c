// kind: trees
// state: subreapers below subreapers: each keeps its own orphans
// users: root nobody
// mutate: task_core_entry.child_subreaper pstree_entry.ppid=0
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

static volatile pid_t *n;

/* Makes an orphan that belongs to the nearest subreaper. */
static void orphan(int i)
{
	pid_t mid = SYS(fork());

	if (mid == 0) {
		pid_t old = getpid();

		if (SYS(fork()) == 0) {
			UNTIL(getppid() != old, "to be adopted");
			n[10 + i] = getppid();
			n[i] = getpid();
			conf_wait();
			SAME(getppid(), n[10 + i]);
			/* Another orphan, made now, must go the same way. */
			if (OK(fork()) == 0) {
				old = n[i];
				if (OK(fork()) == 0) {
					UNTIL(getppid() == n[20 + i], "the subreaper to adopt us");
					n[30 + i] = 1;
					_exit(0);
				}
				_exit(0);
			}
			OK(wait(NULL));
			_exit(0);
		}
		_exit(0);
	}
	conf_reap_ok(mid);
	UNTIL(n[i], "the orphan");
}

static void reap_all(void)
{
	int st;

	while (wait(&st) > 0)
		CHECK(st == 0, "somebody ended with %#x", st);
}

int main(int argc, char **argv)
{
	pid_t inner;

	conf_init(argc, argv);
	n = conf_shared(4096);
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	n[20] = getpid();
	inner = SYS(fork());
	if (inner == 0) {
		SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
		n[21] = getpid();
		orphan(1);
		n[2] = 1;
		conf_wait();
		UNTIL(n[31], "the inner orphan's orphan");
		reap_all();
		_exit(0);
	}
	orphan(0);
	UNTIL(n[2], "the inner orphan");
	SAME(n[10], n[20]);
	SAME(n[11], n[21]);
	conf_ready();
	conf_wait();
	UNTIL(n[30], "the orphan's orphan");
	reap_all();
	conf_pass();
}
