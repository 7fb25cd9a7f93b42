// kind: sharing
// state: processes that share cwd, root and umask (CLONE_FS), and one that has its own
// users: root nobody
// mutate: task_kobj_ids_entry.fs_id=77
// nocriu: it refuses tasks that share their fs
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <linux/kcmp.h>

static char stack[2][65536] __attribute__((aligned(16)));
static volatile int *sh;

static int child(void *arg)
{
	bool shares = arg != NULL;
	char cwd[PATH_MAX];

	__atomic_add_fetch(&sh[0], 1, __ATOMIC_SEQ_CST);
	conf_wait();
	UNTIL(sh[1], "the parent");
	CHECK(getcwd(cwd, sizeof(cwd)), "getcwd: %s", strerror(errno));
	SAME(strcmp(cwd, conf_path("sub")) == 0, shares);
	if (shares)
		SAME(umask(0123), 0421);
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t a, b;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	SYS(mkdir(conf_path("sub"), 0755));
	a = SYS(clone(child, stack[0] + sizeof(stack[0]), CLONE_FS | SIGCHLD, (void *)1));
	b = SYS(clone(child, stack[1] + sizeof(stack[1]), SIGCHLD, NULL));
	UNTIL(sh[0] == 2, "the children");
	conf_ready();
	conf_wait();
	SAME(syscall(SYS_kcmp, getpid(), a, KCMP_FS, 0, 0), 0);
	CHECK(syscall(SYS_kcmp, getpid(), b, KCMP_FS, 0, 0) != 0, "both share it");
	OK(chdir(conf_path("sub")));
	umask(0421);
	sh[1] = 1;
	conf_reap_ok(a);
	SAME(umask(0), 0123);
	conf_reap_ok(b);
	conf_pass();
}
