// kind: files
// state: close-on-exec flags, checked by executing
// users: root nobody
// mutate: fdinfo_entry.flags
#include "memfile.h"

int main(int argc, char **argv)
{
	int fd[6], p[2], i;
	pid_t pid;

	conf_init(argc, argv);
	if (argc == 8) {	/* the executed program: which are open? */
		for (i = 0; i < 6; i++) {
			int n = atoi(argv[i + 2]), open = fcntl(n, F_GETFD) >= 0;

			CHECK(open == !(i & 1), "descriptor %d is %s after exec", n, open ? "open" : "closed");
		}
		_exit(0);
	}
	mf_file("f", 10, 1);
	fd[0] = SYS(open("f", O_RDONLY));
	fd[1] = SYS(open("f", O_RDONLY | O_CLOEXEC));
	SYS(pipe(p));
	fd[2] = p[0];
	fd[3] = p[1];
	SYS(fcntl(p[1], F_SETFD, FD_CLOEXEC));
	fd[4] = SYS(dup(fd[1]));	/* the flag belongs to the descriptor */
	fd[5] = SYS(fcntl(fd[0], F_DUPFD_CLOEXEC, 100));
	conf_ready();
	conf_wait();
	pid = OK(fork());
	if (!pid) {
		char n[6][16];

		for (i = 0; i < 6; i++)
			sprintf(n[i], "%d", fd[i]);
		execl("/proc/self/exe", "exec", conf_dir, n[0], n[1], n[2], n[3], n[4], n[5], NULL);
		conf_fail("exec: %s", strerror(errno));
	}
	conf_reap_ok(pid);
	conf_pass();
}
