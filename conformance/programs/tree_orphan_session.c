// kind: trees
// state: orphans in the session of a leader that lives, and that neither their new parent nor a brother is in
// users: root nobody
// mutate: pstree_entry.ppid=0 pstree_entry.pgid
// nocriu: restore: an orphan in a session of its own gets another parent
// nocriu: mutate: an orphan in a session of its own gets another parent
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

/*
 * root (subreaper) -> one -> leader -> gone -> orphan 0, in the leader's group
 *                                           -> orphan 1, in a group of its own
 * root -> second leader -> gone -> orphan 2
 */
#define N 3
struct node {
	volatile pid_t pid, sid, pgid, reaped;
};
static struct node *n;
static pid_t root;

static void orphan(int i)
{
	UNTIL(getppid() == root, "to be adopted");
	if (i == 1)
		SYS(setpgid(0, 0));
	n[i].sid = getsid(0);
	n[i].pgid = getpgid(0);
	n[i].pid = getpid();
	conf_wait();
	SAME(getppid(), root);
	SAME(getsid(0), n[i].sid);
	SAME(getpgid(0), n[i].pgid);
	CHECK(kill(n[i].sid, 0) == 0, "the leader is gone");
	_exit(10 + i);
}

static void lead(int first, int last)
{
	pid_t gone;
	int i;

	OK(setsid());
	gone = SYS(fork());
	if (gone == 0) {
		for (i = first; i <= last; i++)
			if (SYS(fork()) == 0)
				orphan(i);
		_exit(0);
	}
	conf_reap_ok(gone);
	n[first].reaped = 1;
	conf_wait();
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "the leader has children");
	UNTIL(n[N].pid, "the orphans to look");
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t one, leader, second;
	int i, st;

	conf_init(argc, argv);
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	n = conf_shared(4096);
	root = getpid();
	one = SYS(fork());
	if (one == 0) {
		leader = SYS(fork());
		if (leader == 0)
			lead(0, 1);
		conf_reap_ok(leader);
		_exit(0);
	}
	second = SYS(fork());
	if (second == 0)
		lead(2, 2);
	UNTIL(n[0].pid && n[1].pid && n[2].pid && n[0].reaped && n[2].reaped, "the orphans");
	conf_ready();
	conf_wait();
	for (i = 0; i < N; i++) {
		SAME(OK(waitpid(n[i].pid, &st, 0)), n[i].pid);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 10 + i, "orphan %d ended with %#x", i, st);
	}
	n[N].pid = 1;
	conf_reap_ok(one);
	conf_reap_ok(second);
	OK(prctl(PR_GET_CHILD_SUBREAPER, &st));
	SAME(st, 1);
	conf_pass();
}
