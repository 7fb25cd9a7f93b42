// COUNT MiB of private memory in 100 processes, a hundredth in each.
#include "target.h"
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>

int main(int argc, char **argv)
{
	size_t bytes = ((size_t)count_arg(argc, argv) << 20) / 100 & ~4095UL;
	int done[2];
	char c;

	if (pipe(done))
		die("pipe");
	for (int w = 0; w < 100; w++) {
		pid_t pid = fork();
		if (pid < 0)
			die("fork");
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		uint64_t *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (m == MAP_FAILED || madvise(m, bytes, MADV_NOHUGEPAGE))
			die("mmap");
		uint64_t x = 88172645463325252 + w;
		for (size_t i = 0; i < bytes / sizeof *m; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			m[i] = x;
		}
		if (write(done[1], "", 1) != 1)
			die("write");
		close(done[0]);
		close(done[1]);
		for (;;)
			pause();
	}
	for (int w = 0; w < 100; w++)
		if (read(done[0], &c, 1) != 1)
			die("read");
	close(done[0]);
	close(done[1]);
	ready_and_count();
}
