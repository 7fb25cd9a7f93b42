// How long fork(2) takes in a program with COUNT MiB of private memory, all of it
// written before, in nanoseconds.
#include "target.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

int main(int argc, char **argv)
{
	size_t bytes = (size_t)count_arg(argc, argv) << 20;
	struct timespec from, to;
	char *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED || madvise(m, bytes, MADV_NOHUGEPAGE))
		die("mmap");
	for (size_t i = 0; i < bytes; i += 4096)
		m[i] = 1;
	clock_gettime(CLOCK_MONOTONIC, &from);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	clock_gettime(CLOCK_MONOTONIC, &to);
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		die("fork");
	printf("%lld\n", (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec);
	return 0;
}
