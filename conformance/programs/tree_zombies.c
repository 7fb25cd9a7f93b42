// kind: trees
// state: zombies: exit statuses, deaths by signal, with and without core dump, of children and of a grandchild
// users: root nobody
// mutate: task_core_entry.exit_code|fermata.task_extra.exit_status
// short: yes
// nocriu: restore: exit statuses above 127 and the owners of zombies are lost
// nocriu: mutate: exit statuses above 127 and the owners of zombies are lost
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

static const struct { int exit, signal; } ends[] = { { 0, 0 }, { 1, 0 }, { 255, 0 }, { 0, SIGKILL }, { 0, SIGTERM }, { 0, SIGSEGV }, { 0, 38 } };
#define N (int)(sizeof(ends) / sizeof(ends[0]))

static void make(pid_t *pid, int i)
{
	*pid = SYS(fork());
	if (*pid == 0) {
		if (i % 2)
			SYS(setpgid(0, 0));
		prctl(PR_SET_NAME, "gone soon");
		if (ends[i].signal) {
			signal(ends[i].signal, SIG_DFL);
			kill(getpid(), ends[i].signal);
		}
		_exit(ends[i].exit);
	}
	UNTIL(conf_task_state(*pid) == 'Z', "a zombie");
}

static void check(pid_t pid, int i)
{
	siginfo_t si = { 0 };
	int st;

	SAME(conf_task_state(pid), 'Z');
	OK(waitid(P_PID, pid, &si, WEXITED | WNOWAIT));
	SAME(si.si_pid, pid);
	SAME(si.si_uid, getuid());
	SAME(si.si_code, ends[i].signal == 0 ? CLD_EXITED : CLD_KILLED);
	SAME(si.si_status, ends[i].signal ? ends[i].signal : ends[i].exit);
	SAME(OK(waitpid(pid, &st, 0)), pid);
	SAME(st, ends[i].signal ? ends[i].signal : ends[i].exit << 8);
}

int main(int argc, char **argv)
{
	struct rlimit no = { 0, 0 };
	pid_t pids[N], child, grandchild;
	volatile pid_t *shared;
	int i;

	conf_init(argc, argv);
	SYS(setrlimit(RLIMIT_CORE, &no));
	shared = conf_shared(4096);
	for (i = 0; i < N; i++)
		make(&pids[i], i);
	child = SYS(fork());
	if (child == 0) {
		make(&grandchild, 2);
		shared[0] = grandchild;
		conf_wait();
		check(grandchild, 2);
		_exit(0);
	}
	UNTIL(shared[0], "the grandchild");
	conf_ready();
	conf_wait();
	for (i = 0; i < N; i++)
		check(pids[i], i);
	conf_reap_ok(child);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "there is another child");
	conf_pass();
}
