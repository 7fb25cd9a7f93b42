// kind: trees
// state: sessions and groups whose leaders are dead and reaped, with several members in several groups
// users: root nobody
// mutate: pstree_entry.sid
// nocriu: restore: members of a session without leader get another parent
// nocriu: mutate: members of a session without leader get another parent
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

/*
 * The leader of a session makes two groups in it and two members of each, and
 * ends; so do the group leaders. The members are adopted by the root.
 */
struct node {
	volatile pid_t pid, sid, pgid;
};
static struct node *n;

static void member(int i)
{
	if (SYS(fork()))
		return;
	n[i].sid = getsid(0);
	n[i].pgid = getpgid(0);
	n[i].pid = getpid();
	conf_wait();
	SAME(getsid(0), n[i].sid);
	SAME(getpgid(0), n[i].pgid);
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t leader;
	int i, g;

	conf_init(argc, argv);
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	n = conf_shared(4096);
	leader = SYS(fork());
	if (leader == 0) {
		SYS(setsid());
		for (g = 0; g < 2; g++) {
			pid_t gl = SYS(fork());

			if (gl == 0) {
				SYS(setpgid(0, 0));
				member(2 * g);
				member(2 * g + 1);
				UNTIL(n[2 * g].pid && n[2 * g + 1].pid, "the members");
				_exit(0);
			}
			conf_reap_ok(gl);
		}
		_exit(0);
	}
	conf_reap_ok(leader);
	for (i = 0; i < 4; i++)
		UNTIL(n[i].pid && getpgid(n[i].pid) == n[i].pgid, "the members");
	SAME(n[0].sid, leader);
	CHECK(n[0].pgid == n[1].pgid && n[2].pgid == n[3].pgid && n[0].pgid != n[2].pgid, "set-up: groups");
	CHECK(kill(leader, 0) < 0, "set-up: the leader lives");
	conf_ready();
	conf_wait();
	CHECK(kill(leader, 0) < 0 && errno == ESRCH, "the dead leader is back");
	CHECK(kill(n[0].pgid, 0) < 0 && errno == ESRCH, "a dead group leader is back");
	for (i = 0; i < 4; i++)
		conf_reap_ok(n[i].pid);
	conf_pass();
}
