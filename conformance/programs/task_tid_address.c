// kind: threads
// state: a tid address: the word is cleared and its futex woken when a thread ends
// users: root nobody
// mutate: thread_info_x86.clear_tid_addr|fermata.thread_extra.tid_address
#include "conformance.h"
#include <linux/futex.h>

/*
 * Two threads: one as clone() was told, one that has moved its tid address
 * since. Neither is joined by the C library.
 */
static int word[2], moved = 1;
static int started;
static char go[PATH_MAX]; /* conf_path has one buffer for all who share our storage */
static char stack[2][65536] __attribute__((aligned(16)));

static int run(void *arg)
{
	struct timespec ms = { 0, 1000000 };

	if (arg)
		syscall(SYS_set_tid_address, &moved);
	__atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
	while (syscall(SYS_access, (long)go, F_OK))
		syscall(SYS_nanosleep, &ms, NULL);
	/* Let the main thread sleep on the futex first. */
	ms.tv_nsec = 50000000;
	syscall(SYS_nanosleep, &ms, NULL);
	syscall(SYS_exit, 0);
	return 0;
}

static void await_clear(int *w, const char *which)
{
	struct timespec limit = { 5, 0 };
	int v;

	while ((v = __atomic_load_n(w, __ATOMIC_SEQ_CST)))
		if (syscall(SYS_futex, w, FUTEX_WAIT, v, &limit, NULL, 0) < 0 && errno != EAGAIN && errno != EINTR)
			conf_fail("waiting for the %s word: %s", which, strerror(errno));
}

int main(int argc, char **argv)
{
	/* The threads share everything, our thread-local storage too: they use raw system calls only. */
	int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID;

	conf_init(argc, argv);
	strcpy(go, conf_path("go"));
	word[0] = word[1] = 1;
	SYS(clone(run, stack[0] + sizeof(stack[0]), flags, NULL, NULL, NULL, &word[0]));
	SYS(clone(run, stack[1] + sizeof(stack[1]), flags, (void *)1, NULL, NULL, &word[1]));
	UNTIL(started == 2 && word[0] > 1 && word[1] > 1, "the threads");
	conf_ready();
	conf_wait();
	await_clear(&word[0], "first");
	await_clear(&moved, "moved");
	CHECK(word[1] > 1, "the word that is no longer the tid address was cleared");
	conf_pass();
}
