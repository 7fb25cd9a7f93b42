// kind: trees
// state: zombies that lead a session or group with living members
// users: root nobody
// mutate: pstree_entry.sid pstree_entry.pgid
// nocriu: restore: members of a session without leader get another parent
// nocriu: mutate: members of a session without leader get another parent
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

int main(int argc, char **argv)
{
	volatile pid_t *n;
	pid_t lead[2];
	int i, st;

	conf_init(argc, argv);
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	n = conf_shared(4096);
	for (i = 0; i < 2; i++) {
		lead[i] = SYS(fork());
		if (lead[i] == 0) {
			SYS(i ? setsid() : setpgid(0, 0));
			if (SYS(fork()) == 0) {
				pid_t old = getppid();

				n[i] = getpid();
				UNTIL(getppid() != old, "the leader's end");
				n[2 + i] = 1;
				conf_wait();
				SAME(getpgid(0), n[4 + i]);
				SAME(getsid(0), i ? n[4 + i] : (pid_t)n[6]);
				_exit(0);
			}
			UNTIL(n[i], "the member");
			_exit(20 + i);
		}
		n[4 + i] = lead[i];
	}
	n[6] = getsid(0);
	UNTIL(n[2] && n[3], "the members");
	for (i = 0; i < 2; i++)
		UNTIL(conf_task_state(lead[i]) == 'Z', "the zombies");
	conf_ready();
	conf_wait();
	for (i = 0; i < 2; i++) {
		conf_reap_ok(n[i]);
		SAME(OK(waitpid(lead[i], &st, 0)), lead[i]);
		SAME(WEXITSTATUS(st), 20 + i);
	}
	conf_pass();
}
