// kind: memory
// state: adjacent areas that are one, and such that are not: as many lines in the map as before
// users: root nobody
// mutate: vma_entry.pgoff vma_entry.madv
// nocriu: makes shared anonymous memory a memfd
// unprivileged: only root can read shared anonymous memory whole
#include "memfile.h"

static struct mf_map was, now;

static void map(char *at, size_t n, int prot, int flags, int fd, off_t off)
{
	SYS(mmap(at, n, prot, MAP_FIXED | flags, fd, off));
}

int main(int argc, char **argv)
{
	const int rw = PROT_READ | PROT_WRITE, anon = MAP_PRIVATE | MAP_ANONYMOUS;
	char *p, *q;
	int f, g;

	conf_init(argc, argv);
	mf_file("f", 16 * PAGE, 1);
	mf_file("g", 16 * PAGE, 2);
	f = SYS(open("f", O_RDWR));
	g = SYS(open("g", O_RDWR));
	p = q = SYS(mmap(NULL, 256 * PAGE, PROT_NONE, anon | MAP_NORESERVE, -1, 0));
	q += PAGE;
	/* Three that become one. */
	map(q, PAGE, rw, anon, -1, 0);
	map(q + PAGE, PAGE, rw, anon, -1, 0);
	map(q + 2 * PAGE, PAGE, rw, anon, -1, 0);
	q += 4 * PAGE;
	/* Advice keeps them apart. */
	map(q, 6 * PAGE, rw, anon, -1, 0);
	SYS(madvise(q + 2 * PAGE, 2 * PAGE, MADV_DONTDUMP));
	q += 7 * PAGE;
	/* A file in order is one area, out of order it is several. */
	map(q, PAGE, rw, MAP_PRIVATE, f, 0);
	map(q + PAGE, PAGE, rw, MAP_PRIVATE, f, PAGE);
	map(q + 2 * PAGE, PAGE, rw, MAP_PRIVATE, f, 5 * PAGE);
	map(q + 3 * PAGE, PAGE, rw, MAP_PRIVATE, g, 6 * PAGE);
	map(q + 4 * PAGE, PAGE, rw, MAP_SHARED, g, 7 * PAGE);
	map(q + 5 * PAGE, PAGE, rw, MAP_SHARED, g, 8 * PAGE);
	map(q + 6 * PAGE, PAGE, PROT_READ, MAP_SHARED, g, 9 * PAGE);
	q += 8 * PAGE;
	/* Two objects of shared memory side by side are never one. */
	map(q, PAGE, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	map(q + PAGE, PAGE, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	map(q + 2 * PAGE, PAGE, rw, anon, -1, 0);
	mf_fill(q, PAGE, 3);
	mf_fill(q + PAGE, PAGE, 4);
	mf_fill(q + 2 * PAGE, PAGE, 5);
	/* The first and the very last page of the map of a file's end. */
	close(f);
	close(g);
	mf_map_read(&now);
	mf_map_read(&was);
	conf_ready();
	conf_wait();
	mf_map_read(&now);
	mf_map_same(&now, &was);
	mf_check(q, PAGE, 3, "first object");
	mf_check(q + PAGE, PAGE, 4, "second object");
	mf_check(q + 2 * PAGE, PAGE, 5, "private memory beside them");
	q -= 8 * PAGE;
	mf_check(q, 2 * PAGE, 1, "file in order");
	mf_check_at(q + 2 * PAGE, PAGE, 1, 5 * PAGE, "file out of order");
	mf_check_at(q + 3 * PAGE, 4 * PAGE, 2, 6 * PAGE, "the other file");
	(void)p;
	conf_pass();
}
