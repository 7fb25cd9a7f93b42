// kind: memory
// state: shared anonymous memory of explicit huge pages, shared by two processes
// users: root; only root can fill the pool of huge pages
// nocopies: the processes of both copies take turns by the same files
// mutate: part:pages vma_entry.shmid
#include "hugepages.h"

static char *p;

static void child(void)
{
	mf_mark("child-set");
	conf_wait();
	hp_is_huge(p, "memory of the child");
	mf_await("parent-wrote");
	mf_check(p + HUGE, 4096, 2, "written by the parent");
	mf_fill(p + 2 * HUGE, 4096, 3);
	mf_mark("child-wrote");
}

int main(int argc, char **argv)
{
	pid_t pid;

	conf_init(argc, argv);
	hp_allow(16);
	p = hp_mapped(mmap(NULL, 3 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
	mf_fill(p, HUGE + 5000, 1);
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	hp_is_huge(p, "memory");
	mf_check(p, HUGE + 5000, 1, "content");
	mf_zero(p + HUGE + 5000, HUGE - 5000, "rest of page 1");
	mf_fill(p + HUGE, 4096, 2);
	mf_mark("parent-wrote");
	mf_await("child-wrote");
	mf_check(p + 2 * HUGE, 4096, 3, "written by the child");
	conf_reap_ok(pid);
	conf_pass();
}
