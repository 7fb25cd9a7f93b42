// kind: credentials
// state: strict seccomp: a child that may only read, write and exit
// users: root nobody
// checkpoint: --seccomp-risk
// mutate: thread_core_entry.seccomp_mode
// unprivileged: its filters cannot be
#include "conformance.h"
#include <linux/seccomp.h>

int main(int argc, char **argv)
{
	int in[2], out[2], st;
	pid_t pid;
	char c = 'a';

	conf_init(argc, argv);
	SYS(pipe(in));
	SYS(pipe(out));
	pid = SYS(fork());
	if (pid == 0) {
		SYS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
		while (read(in[0], &c, 1) == 1 && c != 'q') {
			c++;
			if (write(out[1], &c, 1) != 1)
				break;
		}
		syscall(SYS_exit, 12);
	}
	SYS(write(in[1], "x", 1));
	SAME(SYS(read(out[0], &c, 1)), 1);
	SAME(c, 'y');
	conf_ready();
	conf_wait();
	OK(write(in[1], "k", 1));
	SAME(OK(read(out[0], &c, 1)), 1);
	SAME(c, 'l');
	{
		char path[64], line[128], mode = '?';
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/status", pid);
		f = fopen(path, "r");
		CHECK(f, "%s", path);
		while (fgets(line, sizeof(line), f))
			sscanf(line, "Seccomp: %c", &mode);
		fclose(f);
		SAME(mode, '1');
	}
	OK(write(in[1], "q", 1));
	SAME(OK(waitpid(pid, &st, 0)), pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 12, "the child ended with %#x", st);
	conf_pass();
}
