// kind: memory
// state: areas moved, grown, shrunk and emptied (MREMAP_DONTUNMAP) by mremap, anonymous and of a file
// users: root nobody
// mutate: part:pages vma_entry.pgoff
#include "memfile.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static struct mf_map was, now;

int main(int argc, char **argv)
{
	char *moved, *grown, *shrunk, *left, *taken, *file, *room, *part;
	int fd;

	conf_init(argc, argv);
	room = SYS(mmap(NULL, 1 << 24, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	moved = mf_anon(16 * PAGE);
	mf_fill(moved, 16 * PAGE, 1);
	/* The middle of an area goes elsewhere. */
	part = SYS(mremap(moved + 4 * PAGE, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + (1 << 20)));
	grown = mf_anon(4 * PAGE);
	mf_fill(grown, 4 * PAGE, 2);
	grown = SYS(mremap(grown, 4 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + (2 << 20)));
	mf_fill(grown + 63 * PAGE, PAGE, 3);
	shrunk = mf_anon(16 * PAGE);
	mf_fill(shrunk, 16 * PAGE, 4);
	shrunk = SYS(mremap(shrunk, 16 * PAGE, 3 * PAGE, 0));
	left = mf_anon(4 * PAGE);
	mf_fill(left, 4 * PAGE, 5);
	taken = SYS(mremap(left, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
	mf_fill(left + PAGE, PAGE, 6);
	mf_file("f", 32 * PAGE, 7);
	fd = SYS(open("f", O_RDWR));
	file = SYS(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 8 * PAGE));
	mf_fill(file + 6 * PAGE, PAGE, 8);
	file = SYS(mremap(file + 4 * PAGE, 4 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + (3 << 20)));
	close(fd);
	/* Whether neighbours are one depends on where they come from. */
	mf_map_read(&now);
	mf_map_read(&was);
	mf_map_merge(&was);
	conf_ready();
	conf_wait();
	mf_map_read(&now);
	mf_map_merge(&now);
	mf_map_same(&now, &was);
	mf_check(moved, 4 * PAGE, 1, "what stayed");
	mf_check_at(part, 8 * PAGE, 1, 4 * PAGE, "what was moved");
	mf_check_at(moved + 12 * PAGE, 4 * PAGE, 1, 12 * PAGE, "what stayed behind it");
	mf_check(grown, 4 * PAGE, 2, "grown area");
	mf_zero(grown + 4 * PAGE, 59 * PAGE, "what it grew by");
	mf_check(grown + 63 * PAGE, PAGE, 3, "end of the grown area");
	mf_check(shrunk, 3 * PAGE, 4, "shrunk area");
	mf_zero(left, PAGE, "emptied area");
	mf_check(left + PAGE, PAGE, 6, "emptied area, written since");
	mf_check(taken, 4 * PAGE, 5, "what was taken out of it");
	mf_check_at(file, 2 * PAGE, 7, 12 * PAGE, "moved file mapping");
	mf_check(file + 2 * PAGE, PAGE, 8, "its copied page");
	mf_check_at(file + 3 * PAGE, 13 * PAGE, 7, 15 * PAGE, "rest of the moved file mapping");
	conf_pass();
}
