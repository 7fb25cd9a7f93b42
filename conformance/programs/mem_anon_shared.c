// kind: memory
// state: shared anonymous memory of three generations of processes, one with a part of it only, one with it mapped twice
// users: root nobody
// nocopies: the processes of both copies take turns by the same files
// mutate: vma_entry.shmid part:pages
// short: yes
// unprivileged: only root can read shared anonymous memory whole
#include "memfile.h"

static char *mem;
static size_t page;

/* The grandchild has pages 8..15 only, moved elsewhere. */
static void grandchild(void)
{
	char *part = SYS(mremap(mem + 8 * page, 8 * page, 8 * page, MREMAP_MAYMOVE));

	SYS(munmap(mem, 8 * page));
	mf_mark("grandchild-set");
	conf_wait();
	mf_check_at(part, 8 * page, 1, 8 * page, "the grandchild's part");
	mf_mark("grandchild-looked");
	mf_await("child-wrote");
	mf_check(part, page, 2, "the child's writing seen by the grandchild");
	mf_fill(part + page, page, 3);
	mf_mark("grandchild-wrote");
}

static void child(void)
{
	pid_t pid = mf_spawn(grandchild);
	/* An old size of zero maps shared memory a second time. */
	char *again = SYS(mremap(mem, 0, 16 * page, MREMAP_MAYMOVE));

	SYS(mprotect(again, 16 * page, PROT_READ));
	mf_mark("child-set");
	conf_wait();
	mf_check(again, 16 * page, 1, "the child's second mapping");
	mf_mark("child-looked");
	mf_await("parent-looked");
	mf_await("grandchild-looked");
	mf_fill(mem + 8 * page, page, 2);
	mf_check(again + 8 * page, page, 2, "the child's writing in its second mapping");
	mf_mark("child-wrote");
	conf_reap_ok(pid);
}

int main(int argc, char **argv)
{
	pid_t pid;

	conf_init(argc, argv);
	page = PAGE;
	mem = conf_shared(16 * page);
	mf_fill(mem, 16 * page, 1);
	pid = mf_spawn(child);
	mf_await("child-set");
	mf_await("grandchild-set");
	conf_ready();
	conf_wait();
	mf_check(mem, 16 * page, 1, "the parent's mapping");
	mf_await("child-looked");
	mf_mark("parent-looked");
	mf_await("grandchild-wrote");
	mf_check(mem, 8 * page, 1, "what nobody wrote");
	mf_check(mem + 8 * page, page, 2, "the child's writing seen by the parent");
	mf_check(mem + 9 * page, page, 3, "the grandchild's writing seen by the parent");
	conf_reap_ok(pid);
	conf_pass();
}
