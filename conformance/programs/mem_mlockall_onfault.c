// kind: memory
// state: mlockall of the future with MCL_ONFAULT: what is mapped after the restore is locked when touched
// users: root nobody
// mutate: fermata.mm_extra.mlock_future
// nocriu: forgets MCL_FUTURE and MLOCK_ONFAULT
#include "memfile.h"

int main(int argc, char **argv)
{
	struct mf_area a, was, now;
	char *mine, *p;

	conf_init(argc, argv);
	SYS(mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT));
	mine = mf_anon(8 * PAGE);
	mf_fill(mine, PAGE, 1);
	mf_need_area(mine, &was, "memory from before");
	conf_ready();
	conf_wait();
	mf_need_area(mine, &now, "memory from before");
	mf_same_area(&now, &was, "memory from before");
	mf_check(mine, PAGE, 1, "memory from before");
	CHECK(!mf_touched(mine + 5 * PAGE), "an untouched page of memory from before is there");
	p = OK(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	mf_need_area(p, &a, "new memory");
	CHECK(mf_has_flag(&a, "lo"), "new memory is not locked: %s", a.flags);
	CHECK(!mf_touched(p + PAGE), "new memory is there before it is touched");
	conf_pass();
}
