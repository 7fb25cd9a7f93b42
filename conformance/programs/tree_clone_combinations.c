// kind: sharing
// state: every sensible combination of CLONE_VM, FILES, FS, SIGHAND and SYSVSEM, one child each, some of a child
// users: root nobody
// mutate: task_kobj_ids_entry.files_id=77 task_kobj_ids_entry.vm_id=77
// nocriu: it refuses processes that share memory
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <linux/kcmp.h>

#define ALL (CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_SIGHAND | CLONE_SYSVSEM)
static const int bits[] = { CLONE_VM, CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_SYSVSEM };
static const int kinds[] = { KCMP_VM, KCMP_FILES, KCMP_FS, KCMP_SIGHAND, KCMP_SYSVSEM };
#define MAX 32
static char stacks[MAX][16384] __attribute__((aligned(16)));
static volatile int *sh; /* [i]: child i runs; [MAX]: end */

/* With shared memory the thread-local storage is shared too: raw calls only. */
static int child(void *arg)
{
	struct timespec ms = { 0, 1000000 };
	long i = (long)arg;

	sh[i] = 1;
	while (!sh[MAX])
		syscall(SYS_nanosleep, &ms, NULL);
	syscall(SYS_exit_group, 64 + i);
	return 0;
}

int main(int argc, char **argv)
{
	int flags[MAX], n = 0, m, i, j, k, st;
	pid_t pid[MAX];
	long r;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	for (m = 0; m < 32; m++) {
		int f = 0;

		for (k = 0; k < 5; k++)
			if (m & 1 << k)
				f |= bits[k];
		if ((f & CLONE_SIGHAND) && !(f & CLONE_VM))
			continue; /* the kernel refuses it */
		flags[n] = f;
		pid[n] = SYS(clone(child, stacks[n] + sizeof(stacks[n]), f | SIGCHLD, (void *)(long)n));
		UNTIL(sh[n], "a child");
		n++;
	}
	conf_ready();
	conf_wait();
	for (i = 0; i < n; i++) {
		for (k = 0; k < 5; k++) {
			r = syscall(SYS_kcmp, getpid(), pid[i], kinds[k], 0, 0);
			/* Nobody has semaphore undo lists: that can't be told. */
			if (kinds[k] != KCMP_SYSVSEM)
				CHECK((r == 0) == !!(flags[i] & bits[k]), "child %d (flags %#x): kcmp %d says %ld", i, flags[i], kinds[k], r);
		}
	}
	/* Between children, too: what two share with the parent they share with each other. */
	for (i = 0; i < n; i++) {
		for (j = i + 1; j < n; j++) {
			for (k = 0; k < 4; k++) {
				r = syscall(SYS_kcmp, pid[i], pid[j], kinds[k], 0, 0);
				CHECK((r == 0) == !!(flags[i] & flags[j] & bits[k]), "children %d and %d: kcmp %d says %ld", i, j, kinds[k], r);
			}
		}
	}
	sh[MAX] = 1;
	for (i = 0; i < n; i++) {
		SAME(OK(waitpid(pid[i], &st, 0)), pid[i]);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 64 + i, "child %d ended with %#x", i, st);
	}
	conf_pass();
}
