// kind: memory
// state: memfd with seals: against growing, shrinking, writing, future writing (with a writable mapping from before), further seals
// users: root nobody
// mutate: memfd_inode_entry.seals
// nocriu: a writable mapping older than a seal
// unprivileged: only root can reach it
#include "memfile.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static int sealed(const char *name, int seals)
{
	int fd = SYS(memfd_create(name, MFD_ALLOW_SEALING));

	mf_write_stream(fd, 2 * PAGE, seals, 0, "set-up");
	if (seals && seals != F_SEAL_FUTURE_WRITE)
		SYS(fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

int main(int argc, char **argv)
{
	int all = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int none, size, full, future;
	char *ro, *cow, *old;
	char buf[8];

	conf_init(argc, argv);
	none = sealed("none", 0);
	size = sealed("size", F_SEAL_SHRINK | F_SEAL_GROW);
	full = sealed("full", all);
	ro = SYS(mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, full, 0));
	cow = SYS(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, full, 0));
	mf_fill(cow, PAGE, 99);
	future = sealed("future", F_SEAL_FUTURE_WRITE);
	old = SYS(mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, future, 0));
	SYS(fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	conf_ready();
	conf_wait();
	SAME(fcntl(none, F_GET_SEALS), 0);
	SAME(fcntl(size, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
	SAME(fcntl(full, F_GET_SEALS), all);
	SAME(fcntl(future, F_GET_SEALS), F_SEAL_FUTURE_WRITE);
	mf_check(ro, 2 * PAGE, all, "sealed content");
	mf_check(cow, PAGE, 99, "copied page");
	mf_check_at(cow + PAGE, PAGE, all, PAGE, "sealed content, private");
	mf_check(old, 2 * PAGE, F_SEAL_FUTURE_WRITE, "content sealed for the future");
	CHECK(ftruncate(size, 0) < 0 && errno == EPERM, "sealed: shrinks");
	CHECK(pwrite(size, "x", 1, 2 * PAGE) < 0 && errno == EPERM, "sealed: grows");
	SAME(pwrite(size, "x", 1, 0), 1);
	CHECK(pwrite(full, "x", 1, 0) < 0 && errno == EPERM, "sealed: is written");
	CHECK(mprotect(ro, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES, "sealed: made writable");
	CHECK(fcntl(full, F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM, "sealed: takes further seals");
	CHECK(pwrite(future, "x", 1, 0) < 0 && errno == EPERM, "sealed for the future: is written");
	mf_fill(old, 8, 5);	/* but the old mapping still may */
	SAME(pread(future, buf, 8, 0), 8);
	mf_check(buf, 8, 5, "what the old mapping wrote");
	OK(fcntl(none, F_ADD_SEALS, F_SEAL_WRITE));
	conf_pass();
}
