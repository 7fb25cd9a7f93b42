// kind: sharing
// state: processes that share their signal handlers (CLONE_VM | CLONE_SIGHAND), and one with memory only
// users: root nobody
// mutate: task_kobj_ids_entry.sighand_id=77
// nocriu: it refuses processes that share memory
#include "conformance.h"
#include <linux/kcmp.h>

static char stack[2][65536] __attribute__((aligned(16)));
static volatile int started, go_on;

static int child(void *arg)
{
	struct timespec ms = { 0, 1000000 };
	unsigned long act[4] = { 0 };

	__atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
	while (!go_on)
		syscall(SYS_nanosleep, &ms, NULL);
	/* Was SIGUSR1 ignored in this process too? */
	syscall(SYS_rt_sigaction, SIGUSR1, NULL, act, 8);
	syscall(SYS_exit_group, act[0] == (unsigned long)SIG_IGN ? 60 : 61);
	return 0;
}

int main(int argc, char **argv)
{
	pid_t a, b;
	int st;

	conf_init(argc, argv);
	a = SYS(clone(child, stack[0] + sizeof(stack[0]), CLONE_VM | CLONE_SIGHAND | SIGCHLD, NULL));
	b = SYS(clone(child, stack[1] + sizeof(stack[1]), CLONE_VM | SIGCHLD, NULL));
	UNTIL(started == 2, "the children");
	conf_ready();
	conf_wait();
	SAME(syscall(SYS_kcmp, getpid(), a, KCMP_SIGHAND, 0, 0), 0);
	CHECK(syscall(SYS_kcmp, getpid(), b, KCMP_SIGHAND, 0, 0) != 0, "both share the handlers");
	signal(SIGUSR1, SIG_IGN);
	go_on = 1;
	SAME(OK(waitpid(a, &st, 0)), a);
	SAME(WEXITSTATUS(st), 60);
	SAME(OK(waitpid(b, &st, 0)), b);
	SAME(WEXITSTATUS(st), 61);
	conf_pass();
}
