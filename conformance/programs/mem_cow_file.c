// kind: memory
// state: copied pages of a private file mapping, shared by copy on write with a child
// users: root nobody
// nocopies: the processes of both copies take turns by the same files
// mutate: part:pages
// nouser: which pages are shared copy-on-write is known by their frames, which only root can see
#include "cow.h"

static char *p;
static size_t n = 8 << 20;

static void check(bool child, const char *who)
{
	for (size_t at = 0; at < n; at += PAGE) {
		int k = at / PAGE % 8;

		if (k < 3)	/* the file's */
			mf_check_at(p + at, PAGE, 1, at, who);
		else if (k < 6 || !child)
			mf_check(p + at, PAGE, 2, who);
		else
			mf_check(p + at, PAGE, 3, who);
	}
}

static void child(void)
{
	struct cow_view v;

	for (size_t at = 0; at < n; at += PAGE)
		if (at / PAGE % 8 >= 6)
			mf_fill(p + at, PAGE, 3);
	mf_mark("child-set");
	cow_look(p, &v);
	mf_mark("child-looked");
	conf_wait();
	cow_same(p, &v, "child");
	check(true, "child");
	mf_mark("child-checked");
	mf_await("parent-checked");
}

int main(int argc, char **argv)
{
	struct cow_view v;
	pid_t pid;
	int fd;

	conf_init(argc, argv);
	mf_file("f", n, 1);
	fd = SYS(open("f", O_RDONLY));
	p = SYS(mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	close(fd);
	/*
	 * Pages of the file itself are left untouched: how many of them are
	 * mapped is the kernel's business, and changes with time.
	 */
	for (size_t at = 0; at < n; at += PAGE)
		if (at / PAGE % 8 >= 3)
			mf_fill(p + at, PAGE, 2);
	SYS(madvise(p, n, MADV_RANDOM));
	for (size_t at = 0; at < n; at += PAGE)
		if (at / PAGE % 8 < 3)
			SYS(madvise(p + at, PAGE, MADV_DONTNEED));
	pid = mf_spawn(child);
	mf_await("child-set");
	cow_look(p, &v);
	mf_await("child-looked");
	conf_ready();
	conf_wait();
	cow_same(p, &v, "parent");
	mf_await("child-checked");
	check(false, "parent");
	mf_mark("parent-checked");
	conf_reap_ok(pid);
	conf_pass();
}
