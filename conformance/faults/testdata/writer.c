// Memory that is written anew when told to: argv is a page file and a number of
// MiB. Word 0 of the page counts, word 1 counts what is found wrong, word 2 is how
// often all of the memory shall have been written, word 3 how often it was.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile uint64_t *P;

int main(int argc, char **argv)
{
	int fd = open(argv[1], O_RDWR);
	size_t pages = (size_t)atol(argv[2]) << 8, at = 0;
	volatile uint64_t *m;

	P = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	m = mmap(0, pages << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (P == MAP_FAILED || m == MAP_FAILED || madvise((void *)m, pages << 12, MADV_NOHUGEPAGE))
		return 1;
	for (size_t i = 0; i < pages; i++)
		m[i << 9] = i;
	for (uint64_t done = 0;; P[0]++) {
		if (P[2] > done) {
			done++;
			for (size_t i = 0; i < pages; i++)
				m[i << 9] = done << 32 | i;
			P[3] = done;
		}
		for (int k = 0; k < 64; k++, at = (at + 1) % pages)
			if (m[at << 9] != (done << 32 | at))
				P[1]++;
		usleep(500);
	}
}
