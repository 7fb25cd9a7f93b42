// kind: trees
// state: a tree that forks, ends and reaps children and threads all the time: nobody escapes the checkpoint
// users: root nobody
// mutate: user_x86_regs_entry.ip
// moving: tasks maps status fds
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

/*
 * Three processes fork children that fork once more and end, and make threads
 * that end. Each counts what it has made; the counts go on, and every child
 * ends with its own number. Nobody is lost or doubled.
 */
static volatile long *sh; /* [i]: turns of worker i; [8]: end */

static void *thread(void *arg)
{
	*(long *)arg += 1;
	return NULL;
}

static void worker(int i)
{
	pthread_t t;
	pid_t pid, in;
	int st;
	long n, made;

	for (n = 1; !sh[8]; n++) {
		pid = OK(fork());
		if (pid == 0) {
			in = OK(fork());
			if (in == 0)
				_exit(n % 100);
			SAME(OK(waitpid(in, &st, 0)), in);
			SAME(WEXITSTATUS(st), n % 100);
			_exit((n + 1) % 100);
		}
		made = 5;
		PT(pthread_create(&t, NULL, thread, &made));
		PT(pthread_join(t, NULL));
		SAME(made, 6);
		SAME(OK(waitpid(pid, &st, 0)), pid);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == (n + 1) % 100, "a child ended with %#x", st);
		CHECK(waitpid(-1, &st, WNOHANG) < 0 && errno == ECHILD, "a child too many");
		sh[i] = n;
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t pid[3];
	long before[3];
	int i;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	for (i = 0; i < 3; i++) {
		pid[i] = SYS(fork());
		if (pid[i] == 0)
			worker(i);
	}
	UNTIL(sh[0] > 5 && sh[1] > 5 && sh[2] > 5, "the workers");
	conf_ready();
	conf_wait();
	for (i = 0; i < 3; i++)
		before[i] = sh[i];
	for (i = 0; i < 3; i++)
		UNTIL(sh[i] > before[i] + 5, "the workers to go on");
	sh[8] = 1;
	for (i = 0; i < 3; i++)
		conf_reap_ok(pid[i]);
	conf_pass();
}
