// COUNT MiB of private memory in huge pages, where the kernel has them.
#include "target.h"
#include <stdint.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	const size_t huge = 2 << 20;
	size_t bytes = (size_t)count_arg(argc, argv) << 20;
	char *m = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		die("mmap");
	uint64_t *p = (uint64_t *)(((uintptr_t)m + huge - 1) & ~(huge - 1));
	if (madvise(p, bytes, MADV_HUGEPAGE))
		die("madvise");
	uint64_t x = 88172645463325252;
	for (size_t i = 0; i < bytes / sizeof *p; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		p[i] = x;
	}
	ready_and_count();
}
