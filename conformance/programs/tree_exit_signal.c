// kind: trees
// state: children whose end is told by another signal than SIGCHLD, or by none
// users: root nobody
// mutate: fermata.task_extra.exit_signal=17
// nocriu: restore: it does not save the exit signal
// nocriu: mutate: it does not save the exit signal
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

static char stack[2][65536] __attribute__((aligned(16)));
static volatile int *sh;
static volatile int usr1, chld;

static void handler(int sig)
{
	if (sig == SIGUSR1)
		usr1++;
	else
		chld++;
}

static int child(void *arg)
{
	__atomic_add_fetch(&sh[0], 1, __ATOMIC_SEQ_CST);
	conf_wait();
	UNTIL(sh[1], "the parent");
	_exit(3);
}

int main(int argc, char **argv)
{
	pid_t a, b;
	int st;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	signal(SIGUSR1, handler);
	signal(SIGCHLD, handler);
	a = SYS(clone(child, stack[0] + sizeof(stack[0]), SIGUSR1, NULL));
	b = SYS(clone(child, stack[1] + sizeof(stack[1]), 0, NULL));
	UNTIL(sh[0] == 2, "the children");
	conf_ready();
	conf_wait();
	sh[1] = 1;
	/* Only __WCLONE or __WALL finds such children. */
	CHECK(waitpid(a, &st, 0) < 0 && errno == ECHILD, "an ordinary wait finds the first child");
	SAME(OK(waitpid(a, &st, __WCLONE)), a);
	SAME(WEXITSTATUS(st), 3);
	SAME(OK(waitpid(b, &st, __WALL)), b);
	SAME(WEXITSTATUS(st), 3);
	SAME(usr1, 1);
	SAME(chld, 0);
	conf_pass();
}
