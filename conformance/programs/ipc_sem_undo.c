// kind: System V
// state: semaphores with adjustments for the end of a process (SEM_UNDO): a set of three, a child with its own, one without
// users: root nobody
// mutate: fermata.task_extra.undos
// nocriu: does not know the adjustments
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <sys/sem.h>

static int set;

static void change(int number, int by, int flags)
{
	struct sembuf b = { number, by, flags };

	SYS(semop(set, &b, 1));
}

static int value(int number)
{
	return OK(semctl(set, number, GETVAL));
}

int main(int argc, char **argv)
{
	volatile int *there;
	pid_t child, none;
	int i, now[3];

	conf_init(argc, argv);
	there = conf_shared(4096);
	set = SYS(semget(IPC_PRIVATE, 3, 0600));
	change(0, 5, SEM_UNDO);
	change(1, 7, 0);
	change(1, -2, SEM_UNDO);
	child = SYS(fork());
	if (child == 0) {
		change(0, 10, SEM_UNDO);
		there[0] = 1;
		conf_wait();
		_exit(0);
	}
	none = SYS(fork());
	if (none == 0) {
		change(2, 4, 0);
		there[1] = 1;
		conf_wait();
		_exit(0);
	}
	while (!there[0] || !there[1])
		conf_sleep_ms(1);
	conf_ready();
	conf_wait_eintr(); /* the children end */
	conf_reap_ok(child);
	conf_reap_ok(none);
	/* What the child had added is gone, ours is still there; a child has none. */
	child = OK(fork());
	if (child == 0)
		_exit(0);
	conf_reap_ok(child);
	for (i = 0; i < 3; i++)
		now[i] = value(i);
	OK(semctl(set, 0, IPC_RMID));
	SAME(now[0], 5);
	SAME(now[1], 5);
	SAME(now[2], 4);
	conf_pass();
}
