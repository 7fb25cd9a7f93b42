// kind: trees
// state: orphans adopted by a subreaper, with the session and group of parents that are gone
// users: root nobody
// mutate: pstree_entry.ppid=0 pstree_entry.pgid
// nocriu: restore: an orphan in a session of its own gets another parent
// nocriu: mutate: an orphan in a session of its own gets another parent
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

#define N 3
struct node {
	volatile pid_t pid, sid, pgid;
};

int main(int argc, char **argv)
{
	struct node *n;
	pid_t mid;
	int i, st;

	conf_init(argc, argv);
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	n = conf_shared(4096);
	for (i = 0; i < N; i++) {
		mid = SYS(fork());
		if (mid == 0) {
			if (i == 1)
				SYS(setpgid(0, 0));
			if (i == 2)
				SYS(setsid());
			if (SYS(fork()) == 0) {
				UNTIL(getppid() == (pid_t)n[N].pid, "to be adopted");
				n[i].sid = getsid(0);
				n[i].pgid = getpgid(0);
				n[i].pid = getpid();
				conf_wait();
				SAME(getppid(), n[N].pid);
				SAME(getsid(0), n[i].sid);
				SAME(getpgid(0), n[i].pgid);
				_exit(10 + i);
			}
			_exit(0);
		}
		n[N].pid = getpid();
		conf_reap_ok(mid); /* group 1 and session 2 have no leader now */
	}
	UNTIL(n[0].pid && n[1].pid && n[2].pid, "the orphans");
	conf_ready();
	conf_wait();
	for (i = 0; i < N; i++) {
		SAME(OK(waitpid(n[i].pid, &st, 0)), n[i].pid);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 10 + i, "orphan %d ended with %#x", i, st);
	}
	conf_pass();
}
