// kind: sharing
// state: processes that share their memory (CLONE_VM without CLONE_THREAD), each with its own stack and files; and one that has its own memory
// users: root nobody
// mutate: task_kobj_ids_entry.vm_id=77
// nocriu: it refuses processes that share memory
#include "conformance.h"
#include <linux/kcmp.h>

static char stack[2][65536] __attribute__((aligned(16)));
static volatile int started, value, seen[2], mine;

/*
 * The children use the parent's thread-local storage too (errno): they must
 * not use anything that does, but raw calls.
 */
static int child(void *arg)
{
	long i = (long)arg;
	struct timespec ms = { 0, 1000000 };
	volatile long local = 1000 + i;

	__atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
	while (!value)
		syscall(SYS_nanosleep, &ms, NULL);
	seen[i] = value + i;
	syscall(SYS_exit_group, local == 1000 + i ? 40 + i : 1);
	return 0;
}

int main(int argc, char **argv)
{
	pid_t pid[2], loner;
	int st;
	long i;

	conf_init(argc, argv);
	for (i = 0; i < 2; i++)
		pid[i] = SYS(clone(child, stack[i] + sizeof(stack[i]), CLONE_VM | SIGCHLD, (void *)i));
	UNTIL(started == 2, "the children");
	loner = SYS(fork());
	if (loner == 0) {
		mine = 5;
		conf_wait();
		UNTIL(access(conf_path("changed"), F_OK) == 0, "the parent");
		SAME(mine, 5);
		_exit(0);
	}
	conf_ready();
	conf_wait();
	for (i = 0; i < 2; i++)
		SAME(syscall(SYS_kcmp, getpid(), pid[i], KCMP_VM, 0, 0), 0);
	CHECK(syscall(SYS_kcmp, getpid(), loner, KCMP_VM, 0, 0) != 0, "all share their memory");
	mine = 6;
	OK(mknod(conf_path("changed"), S_IFREG | 0600, 0));
	conf_reap_ok(loner);
	SAME(mine, 6);
	value = 11;
	for (i = 0; i < 2; i++) {
		SAME(OK(waitpid(pid[i], &st, 0)), pid[i]);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 40 + i, "child %ld ended with %#x", i, st);
		SAME(seen[i], 11 + i);
	}
	conf_pass();
}
