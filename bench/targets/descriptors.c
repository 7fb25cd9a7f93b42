// COUNT descriptors, each with an open file description of its own.
#include "target.h"
#include <fcntl.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
	long n = count_arg(argc, argv);
	struct rlimit l;
	if (getrlimit(RLIMIT_NOFILE, &l))
		die("getrlimit");
	l.rlim_cur = l.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &l))
		die("setrlimit");
	for (long i = 0; i < n; i++) {
		int fd = open(argv[0], O_RDONLY);
		if (fd < 0 || lseek(fd, i, SEEK_SET) != i)
			die(argv[0]);
	}
	ready_and_count();
}
