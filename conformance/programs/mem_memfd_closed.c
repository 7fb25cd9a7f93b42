// kind: memory
// state: memfd whose descriptors are closed, mapped shared by two processes and private
// users: root nobody
// nocopies: the processes of both copies take turns by the same files
// mutate: part:pages
// unprivileged: only root can reach it
#include "memfile.h"

static char *p, *cow;

static void child(void)
{
	mf_mark("child-set");
	conf_wait();
	mf_await("parent-wrote");
	mf_check(p, PAGE, 3, "written by the parent");
	mf_check(cow + PAGE, PAGE, 2, "copied page in the child");
	mf_fill(p + PAGE, PAGE, 4);
	mf_mark("child-wrote");
}

int main(int argc, char **argv)
{
	struct mf_area a;
	pid_t pid;
	int fd;

	conf_init(argc, argv);
	fd = SYS(memfd_create("closed", 0));
	mf_write_stream(fd, 6 * PAGE, 1, 0, "set-up");
	p = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 2 * PAGE));
	cow = SYS(mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	close(fd);
	mf_fill(cow + PAGE, PAGE, 2);
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	mf_need_area(p, &a, "shared mapping");
	CHECK(!strcmp(a.name, "/memfd:closed (deleted)"), "the mapping is of %s", a.name);
	mf_check_at(p, 4 * PAGE, 1, 2 * PAGE, "shared");
	mf_check(cow, PAGE, 1, "private, page 0");
	mf_check(cow + PAGE, PAGE, 2, "private, copied page 1");
	mf_check_at(cow + 2 * PAGE, 4 * PAGE, 1, 2 * PAGE, "private, pages 2-5");
	mf_fill(p, PAGE, 3);
	mf_check(cow + 2 * PAGE, PAGE, 3, "private page that follows the shared one");
	mf_mark("parent-wrote");
	mf_await("child-wrote");
	mf_check(p + PAGE, PAGE, 4, "written by the child");
	conf_reap_ok(pid);
	conf_pass();
}
