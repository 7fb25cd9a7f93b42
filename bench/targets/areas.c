// COUNT memory areas: pages whose protection alternates, half of them in use.
#include "target.h"
#include <sys/mman.h>

int main(int argc, char **argv)
{
	long n = count_arg(argc, argv);
	char *m = mmap(NULL, (size_t)n * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		die("mmap");
	for (long i = 0; i < n; i += 2) {
		if (mprotect(m + i * 4096, 4096, PROT_READ | PROT_WRITE))
			die("mprotect");
		m[i * 4096] = (char)i;
	}
	ready_and_count();
}
