// kind: task
// state: the exe link, of a program that was started by a symbolic link and renamed since
// users: root nobody
// mutate: mm_entry.exe_file_id
#include "conformance.h"

/*
 * Copies itself into DIR, runs that, and renames the file while it runs: the
 * exe link follows the file.
 */
int main(int argc, char **argv)
{
	char exe[PATH_MAX];
	static char buf[1 << 20];
	struct stat a, b;
	ssize_t n;
	int in, out;

	conf_init(argc, argv);
	if (argc == 2) {
		in = SYS(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
		out = SYS(open(conf_path("first"), O_WRONLY | O_CREAT | O_CLOEXEC, 0755));
		while ((n = SYS(read(in, buf, sizeof(buf)))) > 0)
			SYS(write(out, buf, n));
		close(in);
		close(out);
		SYS(symlink("first", conf_path("link")));
		execl(conf_path("link"), conf_path("link"), conf_dir, "again", NULL);
		conf_fail("set-up: exec: %s", strerror(errno));
	}
	SYS(rename(conf_path("first"), conf_path("renamed")));
	conf_ready();
	conf_wait();
	n = OK(readlink("/proc/self/exe", exe, sizeof(exe) - 1));
	exe[n] = 0;
	CHECK(!strcmp(exe, conf_path("renamed")), "exe is %s", exe);
	OK(stat("/proc/self/exe", &a));
	OK(stat(conf_path("renamed"), &b));
	SAME(a.st_ino, b.st_ino);
	/* A running program's file cannot be written to. */
	CHECK(open(conf_path("renamed"), O_WRONLY) < 0 && errno == ETXTBSY, "the file isn't busy: %s", strerror(errno));
	conf_pass();
}
