// kind: memory
// state: memory that the kernel may drop (MAP_DROPPABLE, since Linux 6.11): each page as it was or zero
// users: root nobody
// mutate: vma_entry.flags=0x22
#include "memfile.h"

int main(int argc, char **argv)
{
	struct mf_area was, now;
	char *p;

	conf_init(argc, argv);
	p = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, 0x08 | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		conf_skip("this kernel has no droppable memory");
	for (int i = 0; i < 16; i++)
		mf_fill(p + i * PAGE, PAGE, i);
	mf_need_area(p, &was, "droppable memory");
	conf_ready();
	conf_wait();
	mf_need_area(p, &now, "droppable memory");
	mf_same_area(&now, &was, "droppable memory");
	CHECK(mf_has_flag(&now, "dp"), "the memory is not droppable: %s", now.flags);
	for (int i = 0; i < 16; i++)
		if (*(uint64_t *)(p + i * PAGE))
			mf_check(p + i * PAGE, PAGE, i, "page that was kept");
		else
			mf_zero(p + i * PAGE, PAGE, "page that was dropped");
	conf_pass();
}
