// kind: credentials
// state: a seccomp filter that admits only what the program needs and else kills, with one asleep in a timed call that may not be restarted
// users: root nobody
// checkpoint: --seccomp-risk
// mutate: thread_core_entry.seccomp_mode
// unprivileged: its filters cannot be
#include "conformance.h"
#include <linux/filter.h>
#include <linux/seccomp.h>

static int allow(int n, const int *nr)
{
	struct sock_filter code[64] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)) };
	struct sock_fprog prog = { 1, code };

	for (int i = 0; i < n; i++) {
		code[prog.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr[i], 0, 1);
		code[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	code[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

int main(int argc, char **argv)
{
	int in[2], st;
	pid_t sleeper, reader;

	conf_init(argc, argv);
	SYS(pipe(in));
	sleeper = SYS(fork());
	if (sleeper == 0) {
		struct timespec t = { 1000000, 0 };

		SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
		SYS(allow(2, (int[]){ SYS_nanosleep, SYS_exit_group }));
		syscall(SYS_nanosleep, &t, NULL);
		_exit(1);
	}
	reader = SYS(fork());
	if (reader == 0) {
		char c;

		SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
		SYS(allow(2, (int[]){ SYS_read, SYS_exit_group }));
		while (read(in[0], &c, 1) == 1 && c != 'q')
			;
		if (c == 'q')
			syscall(SYS_getpid);
		_exit(3);
	}
	UNTIL(conf_in_syscall(sleeper, SYS_nanosleep), "the sleeper");
	UNTIL(conf_in_syscall(reader, SYS_read), "the reader");
	conf_ready();
	conf_wait();
	OK(write(in[1], "aq", 2));
	SAME(OK(waitpid(reader, &st, 0)), reader);
	CHECK(WIFSIGNALED(st) && WTERMSIG(st) == SIGSYS, "the reader ended with %#x: the filter is gone", st);
	SAME(OK(waitpid(sleeper, &st, WNOHANG)), 0);
	OK(kill(sleeper, SIGKILL));
	SAME(OK(waitpid(sleeper, &st, 0)), sleeper);
	conf_pass();
}
