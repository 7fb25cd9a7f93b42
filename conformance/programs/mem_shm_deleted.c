// kind: memory
// state: POSIX shared memory object, unlinked, mapped and open, shared by two processes
// users: root nobody
// nocopies: the processes of both copies take turns by the same files
// mutate: part:pages ghost_file_entry
// unprivileged: only root can reach it
#include "memfile.h"

static char *p;

static void child(void)
{
	mf_mark("child-set");
	conf_wait();
	mf_await("parent-wrote");
	mf_check(p + 2 * PAGE, PAGE, 3, "written by the parent");
}

int main(int argc, char **argv)
{
	char name[64], buf[16];
	struct stat st;
	pid_t pid;
	int fd;

	conf_init(argc, argv);
	/* The pid is not enough: each case may have a pid namespace of its own. */
	snprintf(name, sizeof(name), "/fermata-conformance-%d-%lld", getpid(), (long long)conf_ns(CLOCK_MONOTONIC));
	fd = SYS(shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
	SYS(ftruncate(fd, 4 * PAGE));
	p = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	SYS(shm_unlink(name));
	mf_fill(p, 2 * PAGE, 1);
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	mf_check(p, 2 * PAGE, 1, "content");
	mf_zero(p + 2 * PAGE, 2 * PAGE, "untouched pages");
	OK(fstat(fd, &st));
	SAME(st.st_nlink, 0);
	SAME(st.st_size, 4 * PAGE);
	SAME(st.st_mode, S_IFREG | 0600);
	SAME(st.st_uid, getuid());
	mf_fill(p + 2 * PAGE, PAGE, 3);
	CHECK(pread(fd, buf, sizeof(buf), 2 * PAGE) == sizeof(buf), "pread: %s", strerror(errno));
	mf_check(buf, sizeof(buf), 3, "written in the mapping, read from the file");
	mf_mark("parent-wrote");
	conf_reap_ok(pid);
	CHECK(shm_open(name, O_RDWR, 0) < 0 && errno == ENOENT, "the object has its name again");
	conf_pass();
}
