// kind: memory
// state: mappings of /dev/zero, private and shared with a child
// users: root nobody
// nocopies: the processes of both copies take turns by the same files
// mutate: part:pages
// unprivileged: only root can read shared anonymous memory whole
#include "memfile.h"

static char *priv, *shared;

static void child(void)
{
	mf_mark("child-set");
	conf_wait();
	mf_await("parent-wrote");
	mf_check(shared + PAGE, PAGE, 4, "written by the parent");
	mf_check(priv, PAGE, 1, "private memory in the child");
}

int main(int argc, char **argv)
{
	pid_t pid;
	int fd;

	conf_init(argc, argv);
	fd = SYS(open("/dev/zero", O_RDWR));
	priv = SYS(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	shared = SYS(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	mf_fill(priv, PAGE, 1);
	mf_fill(shared, PAGE, 2);
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	mf_check(priv, PAGE, 1, "private");
	mf_zero(priv + PAGE, 7 * PAGE, "private, untouched");
	mf_check(shared, PAGE, 2, "shared");
	mf_fill(priv, PAGE, 3);
	mf_fill(shared + PAGE, PAGE, 4);
	mf_mark("parent-wrote");
	conf_reap_ok(pid);
	SAME(read(fd, priv, PAGE), PAGE);
	mf_zero(priv, PAGE, "what /dev/zero gives");
	conf_pass();
}
