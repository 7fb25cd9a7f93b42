// kind: files
// state: directories: position of readdir in the middle, a directory held by its descriptor only (deleted)
// users: root nobody
// mutate: reg_file_entry.pos
#include "memfile.h"
#include <dirent.h>

#define N 300
static char seen[N], rest[N];

/* next reads one entry with getdents, so that the position is the kernel's. */
static int next(int fd)
{
	char buf[64];	/* room for one entry */
	struct {
		uint64_t ino;
		int64_t off;
		unsigned short len;
		unsigned char type;
		char name[];
	} *d = (void *)buf;
	long n = syscall(SYS_getdents64, fd, buf, sizeof(buf));

	CHECK(n >= 0, "getdents: %s", strerror(errno));
	if (!n)
		return -1;
	/* If two came, go back to after the first. */
	if (d->len < n)
		lseek(fd, d->off, SEEK_SET);
	return d->name[0] == 'e' ? atoi(d->name + 1) : N;
}

int main(int argc, char **argv)
{
	char name[32];
	struct stat st;
	int fd, gone, k, before = 0, after = 0;

	conf_init(argc, argv);
	SYS(mkdir("dir", 0755));
	for (int i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "dir/e%d", i);
		mf_mark(name);
	}
	fd = SYS(open("dir", O_RDONLY | O_DIRECTORY));
	while (before < N / 2 && (k = next(fd)) >= 0)
		if (k < N)
			seen[k] = 1, before++;
	SYS(mkdir("gone", 0700));
	gone = SYS(open("gone", O_RDONLY | O_DIRECTORY));
	SYS(rmdir("gone"));
	conf_ready();
	conf_wait();
	while ((k = next(fd)) >= 0)
		if (k < N)
			rest[k]++, after++;
	for (int i = 0; i < N; i++)
		CHECK(seen[i] + rest[i] == 1, "entry %d came %d times", i, seen[i] + rest[i]);
	SAME(before + after, N);
	OK(lseek(fd, 0, SEEK_SET));
	for (k = 0; next(fd) >= 0;)
		k++;
	SAME(k, N + 2);
	OK(fstat(gone, &st));
	CHECK(S_ISDIR(st.st_mode), "the deleted directory is none");
	CHECK(openat(gone, "x", O_CREAT | O_WRONLY, 0600) < 0 && errno == ENOENT, "a file can be made in a deleted directory");
	CHECK(access("gone", F_OK) < 0, "the deleted directory is back");
	conf_pass();
}
