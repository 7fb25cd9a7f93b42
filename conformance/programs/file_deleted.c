// kind: files
// state: deleted files: written and read on, opened twice, mapped, deleted with its directory, sparse; mode, owner and times
// users: root nobody
// mutate: ghost_file_entry remap_file_path_entry
// short: yes
// nocriu: keeps microseconds of the times of deleted files
// unprivileged: only root can reach it
#include "memfile.h"
#include <dirent.h>

/* names counts what is in a directory, without what the protocol puts there. */
static int names(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0;

	CHECK(d, "opendir %s: %s", dir, strerror(errno));
	while ((e = readdir(d)))
		if (strcmp(e->d_name, "ready") && strcmp(e->d_name, "go"))
			n++;
	closedir(d);
	return n;
}

int main(int argc, char **argv)
{
	struct timespec times[2] = { { 1000000000, 123456789 }, { 1100000000, 987654321 } };
	struct stat before, now;
	char link[PATH_MAX], want[PATH_MAX + 32], buf[100], *map;
	int a, b, indir, sparse, count;

	conf_init(argc, argv);
	mf_file("gone", 10000, 1);
	a = SYS(open("gone", O_RDWR));
	b = SYS(open("gone", O_RDONLY));
	map = SYS(mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0));
	SYS(lseek(a, 100, SEEK_SET));
	SYS(lseek(b, 200, SEEK_SET));
	SYS(fchmod(a, 0604));
	SYS(unlink("gone"));
	SYS(mkdir("dir", 0755));
	mf_file("dir/in", 500, 2);
	indir = SYS(open("dir/in", O_RDWR));
	SYS(unlink("dir/in"));
	SYS(rmdir("dir"));
	sparse = SYS(open("sparse", O_RDWR | O_CREAT, 0600));
	SYS(pwrite(sparse, "begin", 5, 0));
	SYS(pwrite(sparse, "middle", 6, 1L << 40));
	SYS(ftruncate(sparse, 2L << 40));
	SYS(unlink("sparse"));
	SYS(futimens(a, times));
	SYS(fstat(a, &before));
	count = names(".");
	conf_ready();
	conf_wait();

	mf_link(a, link, sizeof(link));
	snprintf(want, sizeof(want), "%s (deleted)", conf_path("gone"));
	CHECK(!strcmp(link, want), "the deleted file is %s", link);
	SAME(names("."), count);
	OK(fstat(a, &now));
	SAME(now.st_nlink, 0);
	SAME(now.st_size, 10000);
	SAME(now.st_mode, before.st_mode);
	SAME(now.st_uid, before.st_uid);
	SAME(now.st_gid, before.st_gid);
	SAME(now.st_mtim.tv_sec, times[1].tv_sec);
	SAME(now.st_mtim.tv_nsec, times[1].tv_nsec);
	OK(fstat(b, &before));
	SAME(now.st_ino, before.st_ino);
	CHECK(!mf_same_file(getpid(), a, getpid(), b), "two open files have become one");
	mf_expect_stream(a, 100, 1, 100, "the deleted file");
	mf_expect_stream(b, 100, 1, 200, "the deleted file, opened a second time");
	mf_check(map, 10000, 1, "the deleted file, mapped");
	mf_fill(buf, sizeof(buf), 3);
	SAME(pwrite(a, buf, sizeof(buf), 5000), sizeof(buf));
	SAME(pread(b, buf, sizeof(buf), 5000), sizeof(buf));
	mf_check(buf, sizeof(buf), 3, "what was written through the other descriptor");
	mf_check(map + 5000, sizeof(buf), 3, "what was written, mapped");
	CHECK(write(b, "x", 1) < 0 && errno == EBADF, "a read-only descriptor of a deleted file can write");
	OK(ftruncate(a, 20000));

	mf_expect_stream(indir, 500, 2, 0, "the file of a deleted directory");
	SAME(write(indir, "more", 4), 4);
	CHECK(access("dir", F_OK) < 0, "the deleted directory is back");

	OK(fstat(sparse, &now));
	SAME(now.st_size, 2L << 40);
	CHECK(now.st_blocks <= 64, "the sparse file has %ld blocks", (long)now.st_blocks);
	SAME(pread(sparse, buf, 6, 1L << 40), 6);
	CHECK(!memcmp(buf, "middle", 6), "the middle of the sparse file is lost");
	SAME(pread(sparse, buf, 10, 0), 10);
	CHECK(!memcmp(buf, "begin\0\0\0\0\0", 10), "the beginning of the sparse file is lost");
	conf_pass();
}
