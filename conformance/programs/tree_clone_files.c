// kind: sharing
// state: processes that share their descriptor table (CLONE_FILES), and one that has its own
// users: root nobody
// mutate: task_kobj_ids_entry.files_id=77
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <linux/kcmp.h>

static char stack[2][65536] __attribute__((aligned(16)));
static volatile int *sh;

static int sharer(void *arg)
{
	__atomic_add_fetch(&sh[0], 1, __ATOMIC_SEQ_CST);
	conf_wait();
	/* Opened by the parent after go: visible here by number only if shared. */
	UNTIL(sh[1], "the parent's descriptor");
	SAME(fcntl(sh[1], F_GETFD) >= 0, 1);
	sh[2] = OK(open("/dev/null", O_RDONLY));
	_exit(0);
}

static int loner(void *arg)
{
	__atomic_add_fetch(&sh[0], 1, __ATOMIC_SEQ_CST);
	conf_wait();
	UNTIL(sh[1], "the parent's descriptor");
	CHECK(fcntl(sh[1], F_GETFD) < 0 && errno == EBADF, "the table of the other is shared too");
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t a, b;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	a = SYS(clone(sharer, stack[0] + sizeof(stack[0]), CLONE_FILES | SIGCHLD, NULL));
	b = SYS(clone(loner, stack[1] + sizeof(stack[1]), SIGCHLD, NULL));
	UNTIL(sh[0] == 2, "the children");
	conf_ready();
	conf_wait();
	SAME(syscall(SYS_kcmp, getpid(), a, KCMP_FILES, 0, 0), 0);
	CHECK(syscall(SYS_kcmp, getpid(), b, KCMP_FILES, 0, 0) != 0, "both share the table");
	sh[1] = OK(dup(1));
	UNTIL(sh[2], "the child's descriptor");
	OK(fcntl(sh[2], F_GETFD));
	conf_reap_ok(a);
	conf_reap_ok(b);
	conf_pass();
}
