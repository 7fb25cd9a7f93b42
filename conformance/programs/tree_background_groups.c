// kind: trees
// state: the jobs of a shell: background groups of several processes each, one of them stopped as a whole
// users: root nobody
// mutate: pstree_entry.pgid
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

#define JOBS 4
#define EACH 3
static volatile int *sh;

int main(int argc, char **argv)
{
	pid_t pid[JOBS][EACH];
	int i, j, st;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	for (i = 0; i < JOBS; i++) {
		for (j = 0; j < EACH; j++) {
			pid[i][j] = SYS(fork());
			if (pid[i][j] == 0) {
				SYS(setpgid(0, j ? pid[i][0] : 0));
				sh[i * EACH + j] = 1;
				for (;;)
					pause();
			}
			UNTIL(sh[i * EACH + j], "a job");
		}
	}
	SYS(kill(-pid[2][0], SIGTSTP));
	for (j = 0; j < EACH; j++) {
		UNTIL(conf_task_state(pid[2][j]) == 'T', "the job to stop");
		SAME(SYS(waitpid(pid[2][j], &st, WUNTRACED)), pid[2][j]);
	}
	conf_ready();
	conf_wait();
	for (i = 0; i < JOBS; i++)
		for (j = 0; j < EACH; j++) {
			SAME(getpgid(pid[i][j]), pid[i][0]);
			SAME(getsid(pid[i][j]), getsid(0));
			SAME(conf_task_state(pid[i][j]) == 'T', i == 2);
		}
	/* fg, and the end of each job by a signal to its group */
	OK(kill(-pid[2][0], SIGCONT));
	for (i = 0; i < JOBS; i++) {
		OK(kill(-pid[i][0], SIGTERM));
		for (j = 0; j < EACH; j++) {
			SAME(OK(waitpid(-pid[i][0], &st, 0)) > 0, 1);
			CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGTERM, "a member of job %d ended with %#x", i, st);
		}
		CHECK(waitpid(-pid[i][0], &st, WNOHANG) < 0 && errno == ECHILD, "job %d has a further member", i);
	}
	conf_pass();
}
