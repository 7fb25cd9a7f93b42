// kind: trees
// state: a child in user, mount and uts namespaces of its own
// users: root nobody
// refused: namespace
#include "conformance.h"

int main(int argc, char **argv)
{
	volatile int *sh;
	char name[64];
	pid_t pid;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	pid = SYS(fork());
	if (pid == 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS) < 0) {
			sh[0] = 2;
			_exit(0);
		}
		SYS(sethostname("other", 5));
		sh[0] = 1;
		conf_wait();
		OK(gethostname(name, sizeof(name)));
		CHECK(!strcmp(name, "other"), "the host name is %s", name);
		_exit(0);
	}
	UNTIL(sh[0], "the child");
	if (sh[0] == 2)
		conf_skip("no user namespaces for this user");
	conf_ready();
	conf_wait();
	conf_reap_ok(pid);
	conf_pass();
}
