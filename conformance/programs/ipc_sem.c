// kind: System V
// state: semaphores of the tree: values, by key, with mode; who operated last on each; adjustments in both directions that end at 0; one asleep for a value
// users: root nobody
// mutate: fermata.sysv_sem fermata.task_extra.undos
// nocriu: knows only those of a namespace of its own
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <sys/sem.h>

#define KEY 0x00c0ffe1

static int set;

static void change(int number, int by, int flags)
{
	struct sembuf b = { number, by, flags };

	SYS(semop(set, &b, 1));
}

int main(int argc, char **argv)
{
	volatile int *there, *woke;
	pid_t sleeper, minus;
	struct semid_ds ds;
	int i, now[4], who[4], want[4] = { 3, 0, 77, 0 };

	conf_init(argc, argv);
	there = conf_shared(4096);
	woke = there + 2;
	set = SYS(semget(KEY, 4, IPC_CREAT | IPC_EXCL | 0640));
	SYS(semctl(set, 0, SETVAL, 3));
	SYS(semctl(set, 2, SETVAL, 77));
	sleeper = SYS(fork());
	if (sleeper == 0) {
		there[0] = 1;
		change(3, -2, 0);
		*woke = 1;
		_exit(0);
	}
	/* 0 in the end: ours up, the child's down. */
	change(1, 6, SEM_UNDO);
	minus = SYS(fork());
	if (minus == 0) {
		change(1, -6, SEM_UNDO);
		there[1] = 1;
		while (!there[3])
			conf_sleep_ms(1);
		_exit(0);
	}
	UNTIL(there[0] && there[1] && (conf_in_syscall(sleeper, SYS_semop) || conf_in_syscall(sleeper, SYS_semtimedop)), "the children");
	conf_ready();
	conf_wait_eintr();
	SAME(OK(semget(KEY, 4, 0)), set);
	for (i = 0; i < 4; i++) {
		now[i] = OK(semctl(set, i, GETVAL));
		who[i] = OK(semctl(set, i, GETPID));
	}
	OK(semctl(set, 0, IPC_STAT, &ds));
	there[3] = 1;
	conf_reap_ok(minus);
	now[1] += OK(semctl(set, 1, GETVAL)); /* its 6 are back */
	want[1] += 6;
	change(3, 2, 0);
	UNTIL(*woke, "the one asleep");
	conf_reap_ok(sleeper);
	OK(semctl(set, 0, IPC_RMID));
	for (i = 0; i < 4; i++)
		SAME(now[i], want[i]);
	SAME(who[0], getpid());
	SAME(who[2], getpid());
	SAME(ds.sem_perm.mode & 0777, 0640);
	SAME(ds.sem_perm.uid, geteuid());
	conf_pass();
}
