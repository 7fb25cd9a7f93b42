// kind: memory
// state: memfd of huge pages (MFD_HUGETLB), open and mapped shared and private
// users: root; only root can fill the pool of huge pages
// mutate: part:pages memfd_inode_entry
#include "hugepages.h"

int main(int argc, char **argv)
{
	struct stat st;
	char *p, *cow, *tail;
	int fd;

	conf_init(argc, argv);
	hp_allow(16);
	fd = SYS(memfd_create("huge", MFD_HUGETLB | MFD_ALLOW_SEALING | (21 << 26)));
	SYS(ftruncate(fd, 3 * HUGE));
	p = hp_mapped(mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	cow = hp_mapped(mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	mf_fill(p, HUGE, 1);
	mf_fill(p + HUGE, HUGE, 2);
	mf_fill(cow + HUGE, 5000, 3);
	SYS(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	conf_ready();
	conf_wait();
	hp_is_huge(p, "shared");
	hp_is_huge(cow, "private");
	OK(fstat(fd, &st));
	SAME(st.st_size, 3 * HUGE);
	SAME(st.st_blksize, HUGE);
	SAME(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK);
	mf_check(p, HUGE, 1, "page 0");
	mf_check(p + HUGE, HUGE, 2, "page 1");
	mf_check(cow, HUGE, 1, "page 0, private");
	mf_check(cow + HUGE, 5000, 3, "page 1, copied");
	mf_check_at(cow + HUGE + 5000, HUGE - 5000, 2, 5000, "page 1, copied, rest");
	tail = OK(mmap(NULL, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, HUGE));
	mf_fill(tail, 100, 4);
	mf_check(p + HUGE, 100, 4, "page 1, written in a new mapping");
	conf_pass();
}
