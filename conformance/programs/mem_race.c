// kind: memory
// state: memory that two threads and two processes write without a pause, private, shared by copy on write and shared; areas that a fork does not copy, or wipes; mappings that come, move and go: all of it of one instant
// users: root nobody
// mutate: part:pages part:shm
// moving: maps status tasks fds
// unprivileged: only root can read shared anonymous memory whole
#include "memfile.h"

/*
 * Each writer has a count in a local variable (a register or its stack), a ring
 * of private pages in which every page holds the last count written to it, and
 * its count in shared memory, in an area that forks do not copy and in one that
 * they wipe. Before it writes it looks whether all agree with its own count to
 * the last step: memory that was read a moment earlier or later does not.
 *
 * The processes pass a token by shared memory and note privately what they have
 * seen of each other: nobody can have seen what the other has not done.
 */
#define RING 512
#define BASE (64 * 4096L)

struct shared {
	volatile long count[4];
	volatile long token; /* odd: the child's turn */
	volatile long end;
	volatile long churned;
};

static struct shared *sh;
static char *base; /* shared copy-on-write by the processes, never written */

static void ring(int who)
{
	long *p = (long *)mf_anon(RING * 4096), n;
	volatile long *nofork = (volatile long *)mf_anon(4096), *wiped = (volatile long *)mf_anon(4096);

	SYS(madvise(p, RING * 4096, MADV_NOHUGEPAGE));
	if (who < 2) /* the other process has only the second kind */
		SYS(madvise((void *)nofork, 4096, MADV_DONTFORK));
	SYS(madvise((void *)wiped, 4096, MADV_WIPEONFORK));
	for (n = 1; !sh->end; n++) {
		volatile long *at = (volatile long *)((char *)p + n % RING * 4096);

		SAME(*at, n > RING ? n - RING : 0);
		SAME(sh->count[who], n - 1);
		SAME(*nofork, n - 1);
		SAME(*wiped, n - 1);
		*at = n;
		sh->count[who] = n;
		*nofork = n;
		*wiped = n;
		if (n % 4096 == 0)
			mf_check(base, BASE, 7, "memory that nobody writes");
	}
}

static void *thread(void *arg)
{
	ring((long)arg);
	return NULL;
}

/* The token goes to and fro; each side keeps its own private account. */
static void *pass(void *arg)
{
	long odd = (long)arg, *mine = (long *)mf_anon(4096), n;

	for (n = odd; !sh->end; n += 2) {
		long token;

		while ((token = sh->token) != n) {
			CHECK(token == n - 1, "the token is %ld, where %ld was the last that came by", token, n - 1);
			if (sh->end)
				return NULL;
			sched_yield();
		}
		SAME(*mine, n >= 2 ? n - 2 + 1 : 0);
		*mine = n + 1;
		sh->token = n + 1;
	}
	return NULL;
}

/* Mappings come, move and go, and children are made and end. */
static void *churn(void *arg)
{
	(void)arg;
	for (long n = 1; !sh->end; n++) {
		size_t size = (8 + n % 24) * 4096;
		char *p = mf_anon(size), *q;
		pid_t pid;

		mf_fill(p, size, n);
		q = OK(mremap(p, size, 2 * size, MREMAP_MAYMOVE));
		pid = OK(fork());
		if (pid == 0) {
			mf_check(q, size, n, "in a child");
			_exit(0);
		}
		mf_zero(q + size, size, "what mremap has added");
		mf_check(q, size, n, "after mremap");
		OK(mprotect(q, size, PROT_READ));
		conf_reap_ok(pid);
		CHECK(waitpid(-1, NULL, WNOHANG | __WALL) < 0 && errno == ECHILD, "a child too many");
		mf_check(q, size, n, "after mprotect");
		OK(munmap(q, 2 * size));
		sh->churned = n;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[3];
	pid_t pid;
	long was[4], churned;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	base = mf_anon(BASE);
	mf_fill(base, BASE, 7);
	pid = SYS(fork());
	if (pid == 0) {
		PT(pthread_create(&t[0], NULL, thread, (void *)2L));
		PT(pthread_create(&t[1], NULL, pass, (void *)1L));
		PT(pthread_create(&t[2], NULL, churn, NULL));
		ring(3);
		for (int i = 0; i < 3; i++)
			PT(pthread_join(t[i], NULL));
		_exit(0);
	}
	PT(pthread_create(&t[0], NULL, thread, (void *)0L));
	PT(pthread_create(&t[1], NULL, thread, (void *)1L));
	PT(pthread_create(&t[2], NULL, pass, (void *)0L));
	UNTIL(sh->count[0] > 2 * RING && sh->count[1] > 2 * RING && sh->count[2] > 2 * RING && sh->count[3] > 2 * RING &&
		sh->token > 4 && sh->churned > 2, "the writers");
	conf_ready();
	conf_wait();
	for (int i = 0; i < 4; i++)
		was[i] = sh->count[i];
	churned = sh->churned;
	for (int i = 0; i < 4; i++)
		UNTIL(sh->count[i] > was[i] + 3 * RING, "the writers to go on");
	UNTIL(sh->churned > churned + 2, "the mappings to go on");
	sh->end = 1;
	for (int i = 0; i < 3; i++)
		PT(pthread_join(t[i], NULL));
	conf_reap_ok(pid);
	conf_pass();
}
