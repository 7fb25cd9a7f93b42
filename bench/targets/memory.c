// COUNT MiB of private memory, every page different from every other.
#include "target.h"
#include <stdint.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	size_t bytes = (size_t)count_arg(argc, argv) << 20;
	uint64_t *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		die("mmap");
	// 4 KiB pages: what most programs have, and the harder case.
	if (madvise(m, bytes, MADV_NOHUGEPAGE))
		die("madvise");
	uint64_t x = 88172645463325252;
	for (size_t i = 0; i < bytes / sizeof *m; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17; // xorshift: does not compress
		m[i] = x;
	}
	ready_and_count();
}
