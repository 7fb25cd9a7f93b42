// kind: task
// state: a root of its own (chroot), with a working directory inside
// users: root; only root can chroot
// mutate: fs_entry.root_id fs_entry.cwd_id
#include "conformance.h"

int main(int argc, char **argv)
{
	char cwd[PATH_MAX];
	struct stat root, now;

	conf_init(argc, argv);
	SYS(mkdir(conf_path("inner"), 0755));
	SYS(chroot(conf_dir));
	conf_root_is_dir();
	SYS(chdir("/inner"));
	SYS(stat("/", &root));
	conf_ready();
	conf_wait();
	OK(stat("/", &now));
	SAME(now.st_ino, root.st_ino);
	SAME(now.st_dev, root.st_dev);
	CHECK(getcwd(cwd, sizeof(cwd)) && !strcmp(cwd, "/inner"), "cwd is %s", cwd);
	OK(chdir("../../.."));
	CHECK(getcwd(cwd, sizeof(cwd)) && !strcmp(cwd, "/"), "the root can be left: %s", cwd);
	CHECK(access("/proc/self", F_OK) < 0, "the world outside is visible");
	conf_pass();
}
