// kind: memory
// state: mlockall of the future: what is mapped after the restore is locked
// users: root nobody
// mutate: fermata.mm_extra.mlock_future
// nocriu: forgets MCL_FUTURE
#include "memfile.h"

int main(int argc, char **argv)
{
	struct mf_area a;
	char *mine, *p;

	conf_init(argc, argv);
	mine = mf_anon(8 * PAGE);
	mf_fill(mine, PAGE, 1);
	SYS(mlockall(MCL_CURRENT | MCL_FUTURE));
	conf_ready();
	conf_wait();
	mf_need_area(mine, &a, "memory from before");
	CHECK(mf_has_flag(&a, "lo"), "memory from before is not locked: %s", a.flags);
	mf_check(mine, PAGE, 1, "memory from before");
	p = OK(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	mf_need_area(p, &a, "new memory");
	CHECK(mf_has_flag(&a, "lo"), "new memory is not locked: %s", a.flags);
	for (int i = 0; i < 4; i++)
		CHECK(mf_touched(p + i * PAGE), "page %d of new memory is not there", i);
	OK(munlockall());
	p = OK(mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	CHECK(!mf_touched(p + 32 * PAGE), "munlockall does not end it");
	conf_pass();
}
