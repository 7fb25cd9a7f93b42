// kind: files
// state: file that never had a name (O_TMPFILE), and can still be given one
// users: root nobody
// mutate: ghost_file_entry
// nocriu: makes it a deleted file, which cannot be given a name
// moving: fds
#include "memfile.h"

int main(int argc, char **argv)
{
	char path[64];
	struct stat st;
	int fd;

	conf_init(argc, argv);
	fd = open(".", O_TMPFILE | O_RDWR, 0640);
	if (fd < 0)
		conf_skip("O_TMPFILE: %s", strerror(errno));
	mf_write_stream(fd, 5000, 1, 0, "set-up");
	SYS(lseek(fd, 1000, SEEK_SET));
	conf_ready();
	conf_wait();
	SAME(lseek(fd, 0, SEEK_CUR), 1000);
	mf_expect_stream(fd, 4000, 1, 1000, "the file without a name");
	OK(fstat(fd, &st));
	SAME(st.st_nlink, 0);
	SAME(st.st_mode, S_IFREG | 0640);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	OK(stat("named", &st));
	SAME(st.st_size, 5000);
	conf_pass();
}
