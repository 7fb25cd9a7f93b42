// kind: memory
// state: memfd: mapped by two processes, descriptor shared by them, offset, sparse content
// users: root nobody
// nocopies: the processes of both copies take turns by the same files
// mutate: memfd_file_entry.pos part:pages
// short: yes
// unprivileged: only root can reach it
#include "memfile.h"

static int fd, other;
static char *p;

static void child(void)
{
	mf_mark("child-set");
	conf_wait();
	mf_check_at(p + PAGE, PAGE, 1, PAGE, "page 1 in the child");
	mf_await("parent-wrote");
	mf_check(p + 2 * PAGE, PAGE, 2, "page 2, written by the parent");
	SAME(lseek(fd, 0, SEEK_CUR), 777);
}

int main(int argc, char **argv)
{
	char link[64], path[64];
	struct stat st;
	pid_t pid;

	conf_init(argc, argv);
	fd = SYS(memfd_create("some name", MFD_CLOEXEC));
	mf_write_stream(fd, 4 * PAGE, 1, 0, "set-up");
	SYS(ftruncate(fd, 1L << 32));
	SYS(pwrite(fd, "x", 1, (1L << 32) - 1));
	p = SYS(mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	SYS(lseek(fd, 100, SEEK_SET));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = SYS(open(path, O_RDONLY));	/* the same file, opened anew */
	SYS(lseek(other, 55, SEEK_SET));
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	mf_link(fd, link, sizeof(link));
	CHECK(!strcmp(link, "/memfd:some name (deleted)"), "the descriptor points to %s", link);
	SAME(lseek(fd, 0, SEEK_CUR), 100);
	SAME(lseek(other, 0, SEEK_CUR), 55);
	SAME(fcntl(fd, F_GETFD), FD_CLOEXEC);
	SAME(fcntl(other, F_GETFL) & O_ACCMODE, O_RDONLY);
	SAME(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
	OK(fstat(fd, &st));
	SAME(st.st_size, 1L << 32);
	CHECK(st.st_blocks <= 32 * 8, "the sparse file has %ld blocks now", (long)st.st_blocks);
	mf_check(p, 4 * PAGE, 1, "content");
	mf_zero(p + 4 * PAGE, 4 * PAGE, "hole");
	SAME(pread(other, link, 2, (1L << 32) - 2), 2);
	CHECK(link[0] == 0 && link[1] == 'x', "the last byte is lost");
	mf_fill(p + 2 * PAGE, PAGE, 2);
	CHECK(pread(other, link, sizeof(link), 2 * PAGE) == sizeof(link), "pread: %s", strerror(errno));
	mf_check(link, sizeof(link), 2, "the mapping's writing, read from the file");
	CHECK(write(other, "x", 1) < 0 && errno == EBADF, "a read-only descriptor can write");
	lseek(fd, 777, SEEK_SET);
	mf_mark("parent-wrote");
	conf_reap_ok(pid);
	conf_pass();
}
