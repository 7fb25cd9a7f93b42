// kind: sharing
// state: a parent inside vfork whose child has neither executed nor ended, and won't soon
// users: root nobody
// refused: vfork
#include "conformance.h"

/*
 * The root's child calls vfork; the grandchild, in its memory, waits for go.
 * Meanwhile the caller is asleep in the kernel, and nothing but its child's
 * exec or end gets it out of there: it can't be stopped.
 */
static volatile int *sh;

int main(int argc, char **argv)
{
	struct timespec ms = { 0, 1000000 };
	volatile int local = 7;
	pid_t pid, v;
	int st;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	pid = SYS(fork());
	if (pid == 0) {
		v = vfork();
		if (v == 0) {
			sh[0] = 1;
			while (!sh[1])
				syscall(SYS_nanosleep, &ms, NULL);
			local = 8;
			_exit(9);
		}
		CHECK(v > 0, "vfork: %s", strerror(errno));
		CHECK(sh[1], "vfork returned before its child was done");
		SAME(local, 8);
		SAME(OK(waitpid(v, &st, 0)), v);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 9, "the child of vfork ended with %#x", st);
		_exit(0);
	}
	UNTIL(sh[0], "the child of vfork");
	conf_ready();
	conf_wait();
	sh[1] = 1;
	conf_reap_ok(pid);
	conf_pass();
}
