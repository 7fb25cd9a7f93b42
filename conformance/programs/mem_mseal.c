// kind: memory
// state: sealed memory (mseal, since Linux 6.10): sealed still, with its content
// users: root nobody
// mutate: fermata.vma_extra.vmflags part:pages
// nocriu: forgets the seal
#include "memfile.h"

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

int main(int argc, char **argv)
{
	struct mf_area was, now;
	char *p;

	conf_init(argc, argv);
	p = SYS(mmap(NULL, 6 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	SYS(mprotect(p + PAGE, 4 * PAGE, PROT_READ | PROT_WRITE));
	mf_fill(p + PAGE, 2 * PAGE, 1);
	if (syscall(SYS_mseal, p + PAGE, 4 * PAGE, 0) < 0)
		conf_skip("this kernel cannot seal memory");
	mf_need_area(p + PAGE, &was, "sealed memory");
	conf_ready();
	conf_wait();
	mf_need_area(p + PAGE, &now, "sealed memory");
	mf_same_area(&now, &was, "sealed memory");
	mf_check(p + PAGE, 2 * PAGE, 1, "content");
	mf_fill(p + 3 * PAGE, PAGE, 2);
	CHECK(munmap(p + PAGE, PAGE) < 0 && errno == EPERM, "sealed memory can be unmapped");
	CHECK(mprotect(p + PAGE, PAGE, PROT_READ) < 0 && errno == EPERM, "sealed memory can be protected");
	OK(mprotect(p, PAGE, PROT_READ));
	conf_pass();
}
