// kind: memory
// state: memory that the program wants zeroed or unmapped after a restore, and its count of restores
// users: root nobody
// nocopies: restores are counted for each copy, and both answer by the same files
// modes: restore twice lazy mutate
// mutate: memfd_inode_entry.name
// moving: maps
#include "memfile.h"
#include "../../docs/fermata.h"

int main(int argc, char **argv)
{
	char *zero, *own, *gone, *kept;
	uint64_t before;
	size_t n = 64 * PAGE;
	int fd;

	conf_init(argc, argv);
	SAME(fermata_restores(), 0);
	zero = fermata_zeroed(n);
	gone = fermata_unmapped(n);
	kept = fermata_map("fermata-zero", n); /* a name like it */
	CHECK(zero != MAP_FAILED && gone != MAP_FAILED && kept != MAP_FAILED, "set-up: %s", strerror(errno));
	fd = SYS(memfd_create("fermata:zero:private", MFD_CLOEXEC));
	SYS(ftruncate(fd, n));
	own = SYS(mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	mf_fill(zero, n, 1);
	mf_fill(gone, n, 2);
	mf_fill(kept, n, 3);
	mf_fill(own, n, 4);
	conf_ready();
	conf_wait();
	before = fermata_restores();
	CHECK(before == 1 || before == 2, "restored %lu times", (unsigned long)before);
	mf_zero(zero, n, "memory to be zeroed");
	mf_zero(own, n, "private memory to be zeroed");
	mf_check(kept, n, 3, "other memory");
	mf_faults(gone, false, SIGSEGV, SEGV_MAPERR, "memory to be unmapped");
	mf_fill(zero, n, 5);
	mf_check(zero, n, 5, "zeroed memory, written");
	conf_pass();
}
