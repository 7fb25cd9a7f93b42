// What every target of the benchmarks does in the end: it says that its state
// is set up, and from then on counts, so that it can be seen to go on.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

static inline long count_arg(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s COUNT\n", argv[0]);
		exit(2);
	}
	return strtol(argv[1], NULL, 0);
}

// Writes a number every 5 ms to stdout, which is a file.
static inline void ready_and_count(void)
{
	for (unsigned long n = 0;; n++) {
		if (dprintf(1, "%lu\n", n) < 0)
			die("write");
		usleep(5000);
	}
}
