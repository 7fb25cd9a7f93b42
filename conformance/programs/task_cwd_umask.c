// kind: task
// state: working directory and umask
// users: root nobody
// mutate: fs_entry.umask
// short: yes
#include "conformance.h"

int main(int argc, char **argv)
{
	char cwd[PATH_MAX];

	conf_init(argc, argv);
	SYS(mkdir(conf_path("sub"), 0755));
	SYS(chdir(conf_path("sub")));
	umask(0135);
	conf_ready();
	conf_wait();
	CHECK(getcwd(cwd, sizeof(cwd)), "getcwd: %s", strerror(errno));
	CHECK(!strcmp(cwd, conf_path("sub")), "cwd is %s", cwd);
	SAME(umask(0), 0135);
	conf_pass();
}
