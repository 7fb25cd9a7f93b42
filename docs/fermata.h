/*
 * What a program can tell fermata about its memory: see for-programs.md.
 * There is no library; this header is all. It may be copied into any program.
 */
#ifndef FERMATA_H
#define FERMATA_H

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * fermata_map gives n bytes of zeroed memory under a name, MAP_FAILED with errno
 * set if there is none. Children made by fork share it.
 */
static inline void *fermata_map(const char *name, size_t n)
{
	int fd = memfd_create(name, MFD_CLOEXEC);
	void *p = MAP_FAILED;

	if (fd < 0)
		return p;
	if (ftruncate(fd, (off_t)n) == 0)
		p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return p;
}

/* Memory whose content is not saved: after a restore it is zero. */
static inline void *fermata_zeroed(size_t n) { return fermata_map("fermata:zero", n); }

/* Memory that is not saved at all: after a restore nothing is mapped there. */
static inline void *fermata_unmapped(size_t n) { return fermata_map("fermata:unmap", n); }

/*
 * fermata_restores gives the number of times that the program was restored since
 * the first call, which should come early, before there are threads and children.
 */
static inline uint64_t fermata_restores(void)
{
	static volatile uint64_t *count;

	if (!count) {
		void *p = fermata_map("fermata:restored", 4096);

		if (p == MAP_FAILED)
			return 0;
		count = (volatile uint64_t *)p;
		*count = 0; /* the page is there: it is saved, and counted in */
	}
	return *count;
}

#endif
