// kind: memory
// state: process whose executable file was deleted
// users: root nobody
// mutate: mm_entry.exe_file_id part:pages
#include "memfile.h"

static const char constant[] = "in the text of a deleted file";

int main(int argc, char **argv)
{
	char exe[PATH_MAX], want[PATH_MAX + 32];

	conf_init(argc, argv);
	if (argc == 2) {
		int in = SYS(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
		int out = SYS(open(conf_path("copy"), O_WRONLY | O_CREAT | O_CLOEXEC, 0755));
		char buf[4096];
		ssize_t n;

		while ((n = read(in, buf, sizeof(buf))) > 0)
			mf_write_all(out, buf, n, "set-up");
		close(out);
		SYS(execl(conf_path("copy"), "copy", conf_dir, "again", NULL));
	}
	SYS(unlink("copy"));
	conf_ready();
	conf_wait();
	exe[OK(readlink("/proc/self/exe", exe, sizeof(exe) - 1))] = 0;
	snprintf(want, sizeof(want), "%s (deleted)", conf_path("copy"));
	CHECK(!strcmp(exe, want), "the executable is %s, not %s", exe, want);
	CHECK(access("copy", F_OK) < 0, "the deleted executable is back");
	CHECK(!strcmp(constant, "in the text of a deleted file"), "constant is damaged");
	SAME(access("/proc/self/exe", X_OK), 0);
	conf_pass();
}
