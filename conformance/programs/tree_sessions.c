// kind: trees
// state: a tree of sessions and process groups: new sessions, groups led by others, a member of its grandparent's group
// users: root nobody
// mutate: pstree_entry.sid pstree_entry.pgid
// short: yes
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

/*
 * root (session R)
 *   a: setsid; a1: in a's group; a2: leads a group; a3: in a2's group
 *   b: leads a group in R; b1: in b's group; b2: back in R's own group
 *   c: setsid; c1: setsid; c2: leads a group in c
 */
struct node {
	pid_t pid, ppid, sid, pgid;
};
enum { R, A, A1, A2, A3, B, B1, B2, C, C1, C2, N };
static struct node *nodes;
static volatile int *checked;

static void note(int i)
{
	nodes[i].ppid = getppid();
	nodes[i].sid = getsid(0);
	nodes[i].pgid = getpgid(0);
	__atomic_store_n(&nodes[i].pid, getpid(), __ATOMIC_SEQ_CST);
}

static void check(int i)
{
	SAME(getpid(), nodes[i].pid);
	SAME(getppid(), nodes[i].ppid);
	SAME(getsid(0), nodes[i].sid);
	SAME(getpgid(0), nodes[i].pgid);
	__atomic_add_fetch(checked, 1, __ATOMIC_SEQ_CST);
}

/* leaf makes a child that joins the group (0: its own, -1: inherits). */
static void leaf(int i, int group, bool session)
{
	pid_t pid = SYS(fork());

	if (pid == 0) {
		if (session)
			SYS(setsid());
		else if (group >= 0)
			SYS(setpgid(0, group));
		note(i);
		conf_wait();
		check(i);
		_exit(0);
	}
	UNTIL(nodes[i].pid, "a leaf");
}

static void end(int i, int kids)
{
	int st;

	conf_wait();
	check(i);
	while (kids--) {
		OK(wait(&st));
		CHECK(st == 0, "a child of node %d ended with %#x", i, st);
	}
	if (i)
		_exit(0);
}

int main(int argc, char **argv)
{
	conf_init(argc, argv);
	nodes = conf_shared(4096);
	checked = (int *)(nodes + N);
	note(R);
	if (SYS(fork()) == 0) {
		SYS(setsid());
		leaf(A1, -1, false);
		leaf(A2, 0, false);
		leaf(A3, nodes[A2].pid, false);
		note(A);
		end(A, 3);
	}
	if (SYS(fork()) == 0) {
		SYS(setpgid(0, 0));
		leaf(B1, -1, false);
		leaf(B2, nodes[R].pid, false);
		note(B);
		end(B, 2);
	}
	if (SYS(fork()) == 0) {
		SYS(setsid());
		leaf(C1, -1, true);
		leaf(C2, 0, false);
		note(C);
		end(C, 2);
	}
	UNTIL(nodes[A].pid && nodes[B].pid && nodes[C].pid, "the tree");
	conf_ready();
	end(R, 3);
	SAME(*checked, N);
	conf_pass();
}
