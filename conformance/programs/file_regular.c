// kind: files
// state: regular files: open flags, offsets (beyond the end, above 4 GiB), close-on-exec
// users: root nobody
// mutate: reg_file_entry.pos reg_file_entry.flags fdinfo_entry.flags
// short: yes
#include "memfile.h"

static struct {
	int flags;
	off_t pos;
	int fd, fl;
} f[] = {
	{ O_RDONLY, 100 },
	{ O_WRONLY, 5L << 40 },
	{ O_RDWR, 0 },
	{ O_RDWR | O_APPEND, 33 },
	{ O_RDWR | O_NONBLOCK, 1 },
	{ O_RDWR | O_SYNC, 2 },
	{ O_WRONLY | O_DSYNC, 3 },
	{ O_RDWR | O_DIRECT, 4096 },
	{ O_RDONLY | O_NOATIME, 1L << 32 },
	{ O_RDWR | O_NOFOLLOW | O_CLOEXEC, 5000 },
	{ O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC, 12345 },
};
#define N (sizeof(f) / sizeof(f[0]))

int main(int argc, char **argv)
{
	char buf[64], path[PATH_MAX];
	struct stat st, now;

	conf_init(argc, argv);
	mf_file("f", 20000, 1);
	SYS(stat("f", &st));
	for (size_t i = 0; i < N; i++) {
		f[i].fd = open("f", f[i].flags);
		if (f[i].fd < 0 && errno == EINVAL && f[i].flags & O_DIRECT)
			f[i].fd = SYS(open("f", O_RDWR));
		SYS(f[i].fd);
		SYS(lseek(f[i].fd, f[i].pos, SEEK_SET));
		f[i].fl = SYS(fcntl(f[i].fd, F_GETFL));
	}
	conf_ready();
	conf_wait();
	for (size_t i = 0; i < N; i++) {
		OK(fstat(f[i].fd, &now));
		SAME(now.st_ino, st.st_ino);
		SAME(now.st_dev, st.st_dev);
		SAME(fcntl(f[i].fd, F_GETFL), f[i].fl);
		SAME(fcntl(f[i].fd, F_GETFD), f[i].flags & O_CLOEXEC ? FD_CLOEXEC : 0);
		SAME(lseek(f[i].fd, 0, SEEK_CUR), f[i].pos);
		mf_link(f[i].fd, path, sizeof(path));
		CHECK(!strcmp(path, conf_path("f")), "the file is %s", path);
	}
	/* And they do what their flags say. */
	SAME(read(f[0].fd, buf, sizeof(buf)), sizeof(buf));
	mf_check_at(buf, sizeof(buf), 1, 100, "read at 100");
	CHECK(write(f[0].fd, buf, 1) < 0 && errno == EBADF, "a read-only file can be written");
	CHECK(read(f[1].fd, buf, 1) < 0 && errno == EBADF, "a write-only file can be read");
	mf_fill(buf, sizeof(buf), 2);
	SAME(write(f[3].fd, buf, 10), 10);	/* appends, wherever it stood */
	SAME(lseek(f[3].fd, 0, SEEK_CUR), 20010);
	SAME(write(f[10].fd, buf + 10, 10), 10);
	SAME(lseek(f[10].fd, 0, SEEK_CUR), 20020);
	SAME(lseek(f[2].fd, 0, SEEK_CUR), 0);
	SAME(pread(f[2].fd, buf, 20, 20000), 20);
	mf_check(buf, 20, 2, "what was appended");
	SAME(read(f[8].fd, buf, 1), 0);		/* beyond the end */
	conf_pass();
}
