// COUNT MiB of private memory that a thread writes all over again, without a pause.
#include "target.h"
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

static uint64_t *m;
static size_t pages;

static void *writes(void *arg)
{
	(void)arg;
	for (uint64_t n = 1;; n++)
		for (size_t i = 0; i < pages; i++)
			((volatile uint64_t *)m)[i << 9] += n;
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;
	pages = (size_t)count_arg(argc, argv) << 8;
	m = mmap(NULL, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED || madvise(m, pages << 12, MADV_NOHUGEPAGE))
		die("mmap");
	uint64_t x = 88172645463325252;
	for (size_t i = 0; i < pages << 9; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		m[i] = x;
	}
	if (pthread_create(&t, NULL, writes, NULL))
		die("pthread_create");
	ready_and_count();
}
