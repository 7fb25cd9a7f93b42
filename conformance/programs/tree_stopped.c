// kind: trees
// state: stopped children: by SIGSTOP, SIGTSTP and SIGTTIN, reported to the parent or not yet; they go on at SIGCONT
// users: root nobody
// mutate: task_core_entry.stop_signo=19|fermata.task_extra.stop_signal=19
// mutate: fermata.task_extra.stopped_unreported task_core_entry.task_state=1|fermata.task_extra.stop_signal
// nocriu: it knows no stop but SIGSTOP
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

static const int sigs[] = { SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU };
#define N 4
static volatile int *ran;

int main(int argc, char **argv)
{
	pid_t pid[N];
	int i, st;

	conf_init(argc, argv);
	ran = conf_shared(4096);
	for (i = 0; i < N; i++) {
		pid[i] = SYS(fork());
		if (pid[i] == 0) {
			/* An orphaned group ignores the terminal's stops: we have a parent in our session. */
			SYS(setpgid(0, 0));
			ran[i] = 1;
			for (;;) {
				conf_sleep_ms(1);
				if (ran[i] == 2)
					_exit(50 + i);
			}
		}
		UNTIL(ran[i], "the children");
		SYS(kill(pid[i], sigs[i]));
		UNTIL(conf_task_state(pid[i]) == 'T', "the stop");
		if (i < 3)
			SAME(SYS(waitpid(pid[i], &st, WUNTRACED)), pid[i]);
	}
	conf_ready();
	conf_wait();
	for (i = 0; i < N; i++)
		SAME(conf_task_state(pid[i]), 'T');
	/* Three stops have been reported before, the last one not. */
	for (i = 0; i < 3; i++)
		SAME(OK(waitpid(pid[i], &st, WUNTRACED | WNOHANG)), 0);
	SAME(OK(waitpid(pid[3], &st, WUNTRACED | WNOHANG)), pid[3]);
	CHECK(WIFSTOPPED(st) && WSTOPSIG(st) == SIGTTOU, "the stop is reported as %#x", st);
	for (i = 0; i < N; i++) {
		OK(kill(pid[i], SIGCONT));
		SAME(OK(waitpid(pid[i], &st, WCONTINUED)), pid[i]);
		CHECK(WIFCONTINUED(st), "child %d is reported as %#x, not as continued", i, st);
		ran[i] = 2;
		SAME(OK(waitpid(pid[i], &st, 0)), pid[i]);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 50 + i, "child %d ended with %#x", i, st);
	}
	conf_pass();
}
