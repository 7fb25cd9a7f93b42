// kind: task
// state: a working directory that has been removed
// users: root nobody
// mutate: fs_entry.cwd_id
#include "conformance.h"

int main(int argc, char **argv)
{
	char cwd[PATH_MAX], link[PATH_MAX];
	struct stat st;
	ssize_t n;

	conf_init(argc, argv);
	SYS(mkdir(conf_path("gone"), 0710));
	SYS(chdir(conf_path("gone")));
	SYS(rmdir(conf_path("gone")));
	conf_ready();
	conf_wait();
	CHECK(!getcwd(cwd, sizeof(cwd)) && errno == ENOENT, "the removed directory has a name again");
	n = OK(readlink("/proc/self/cwd", link, sizeof(link) - 1));
	link[n] = 0;
	snprintf(cwd, sizeof(cwd), "%s (deleted)", conf_path("gone"));
	CHECK(!strcmp(link, cwd), "cwd is %s", link);
	OK(stat(".", &st));
	SAME(st.st_nlink, 0);
	SAME(st.st_mode & 07777, 0710);
	CHECK(mkdir("x", 0755) < 0 && errno == ENOENT, "a directory can be made in it");
	CHECK(access(conf_path("gone"), F_OK) < 0, "the removed directory is there");
	conf_pass();
}
