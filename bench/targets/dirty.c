// COUNT MiB of private memory. A tenth of a second at a time it writes to one page
// in a hundred, and works: how much it has done so far is what it counts.
#include "target.h"
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

int main(int argc, char **argv)
{
	size_t pages = (size_t)count_arg(argc, argv) << 8;
	uint64_t *m = mmap(NULL, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED || madvise(m, pages << 12, MADV_NOHUGEPAGE))
		die("mmap");
	uint64_t x = 88172645463325252, done = 0;
	for (size_t i = 0; i < pages << 9; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		m[i] = x;
	}
	for (;;) {
		struct timespec now, from;
		clock_gettime(CLOCK_MONOTONIC, &from);
		for (size_t i = 0; i < pages / 100; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			m[(x % pages) << 9]++;
		}
		do {
			for (int i = 0; i < 10000; i++)
				x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			done++;
			clock_gettime(CLOCK_MONOTONIC, &now);
		} while ((now.tv_sec - from.tv_sec) * 1000000000LL + now.tv_nsec - from.tv_nsec < 100000000);
		if (dprintf(1, "%llu\n", (unsigned long long)done) < 0)
			die("write");
	}
}
