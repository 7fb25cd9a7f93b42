// kind: memory
// state: mappings of a deleted file that no descriptor holds: shared by two processes, and private with copied pages
// users: root nobody
// nocopies: the processes of both copies take turns by the same files
// mutate: part:pages
// unprivileged: only root can reach it
#include "memfile.h"

static char *shared, *priv;

static void child(void)
{
	mf_mark("child-set");
	conf_wait();
	mf_check(shared, PAGE, 1, "page 0 in the child");
	mf_await("parent-wrote");
	mf_check(shared + 3 * PAGE, PAGE, 5, "page 3, written by the parent");
	mf_check(priv + 3 * PAGE, PAGE, 5, "page 3, in the private mapping");
	mf_check(priv + PAGE, PAGE, 2, "copied page 1 in the child");
}

int main(int argc, char **argv)
{
	char link[PATH_MAX];
	struct mf_area a;
	struct stat st;
	pid_t pid;
	int fd;

	conf_init(argc, argv);
	mf_file("gone", 8 * PAGE, 1);
	fd = SYS(open("gone", O_RDWR));
	shared = SYS(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	priv = SYS(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	close(fd);
	SYS(unlink("gone"));
	mf_fill(priv + PAGE, PAGE, 2);
	mf_fill(shared + 2 * PAGE, PAGE, 3);
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	mf_need_area(shared, &a, "shared mapping");
	snprintf(link, sizeof(link), "%s (deleted)", conf_path("gone"));
	CHECK(!strcmp(a.name, link), "the mapping's file is %s, not %s", a.name, link);
	CHECK(stat("gone", &st) < 0 && errno == ENOENT, "the deleted file is back");
	mf_check_at(shared, PAGE, 1, 0, "page 0");
	mf_check(shared + 2 * PAGE, PAGE, 3, "page 2");
	mf_check_at(shared + 3 * PAGE, 5 * PAGE, 1, 3 * PAGE, "pages 3-7");
	mf_check(priv, PAGE, 1, "page 0, private");
	mf_check(priv + PAGE, PAGE, 2, "copied page 1");
	mf_check(priv + 2 * PAGE, PAGE, 3, "page 2, private");
	mf_check_at(shared + PAGE, PAGE, 1, PAGE, "page 1");
	mf_fill(shared + 3 * PAGE, PAGE, 5);
	mf_mark("parent-wrote");
	conf_reap_ok(pid);
	conf_pass();
}
