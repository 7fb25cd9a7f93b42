// kind: memory
// state: private anonymous memory of explicit huge pages (MAP_HUGETLB), some touched, shared with a child by copy on write
// users: root; only root can fill the pool of huge pages
// mutate: part:pages
#include "hugepages.h"

static char *p;

static void child(void)
{
	mf_fill(p + HUGE, 4096, 3);
	mf_mark("child-set");
	conf_wait();
	mf_check(p, HUGE, 1, "page 0 in the child");
	mf_check(p + HUGE, 4096, 3, "page 1, the child's own");
}

int main(int argc, char **argv)
{
	pid_t pid;

	conf_init(argc, argv);
	hp_allow(16);
	p = hp_mapped(mmap(NULL, 4 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
	mf_fill(p, HUGE, 1);
	mf_fill(p + 3 * HUGE - 100, 100, 2);
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	hp_is_huge(p, "memory");
	mf_check(p, HUGE, 1, "page 0");
	mf_zero(p + HUGE, 2 * HUGE - 100, "pages 1 and 2");
	mf_check(p + 3 * HUGE - 100, 100, 2, "end of page 2");
	memset(p + 3 * HUGE, 1, HUGE);
	conf_reap_ok(pid);
	conf_pass();
}
