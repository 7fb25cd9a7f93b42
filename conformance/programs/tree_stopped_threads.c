// kind: trees
// state: a stopped process of several threads, some asleep in system calls, with signals pending
// users: root nobody
// mutate: task_core_entry.task_state=1|fermata.task_extra.stop_signal
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

static volatile int *sh; /* 0: threads ready, 1: loops, 2: end, 3: caught */

static void handler(int sig)
{
	sh[3]++;
}

static void *run(void *arg)
{
	int p[2];
	char c;

	__atomic_add_fetch(&sh[0], 1, __ATOMIC_SEQ_CST);
	if ((long)arg == 1) {
		SYS(pipe(p));
		read(p[0], &c, 1);
		conf_fail("the read ended: %s", strerror(errno));
	}
	for (;;) {
		sh[1]++;
		conf_sleep_ms(1);
	}
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	pthread_t t;
	pid_t pid;
	int st, n;
	long i;

	conf_init(argc, argv);
	sh = conf_shared(4096);
	pid = SYS(fork());
	if (pid == 0) {
		SYS(sigaction(SIGUSR1, &sa, NULL));
		for (i = 0; i < 4; i++)
			PT(pthread_create(&t, NULL, run, (void *)i));
		UNTIL(sh[2], "the end");
		_exit(sh[3]);
	}
	UNTIL(sh[0] == 4 && sh[1] > 10, "the threads");
	SYS(kill(pid, SIGSTOP));
	UNTIL(conf_task_state(pid) == 'T', "the stop");
	SAME(SYS(waitpid(pid, &st, WUNTRACED)), pid);
	SYS(kill(pid, SIGUSR1)); /* stays pending until SIGCONT */
	n = sh[1];
	conf_ready();
	conf_wait();
	conf_sleep_ms(30);
	SAME(conf_task_state(pid), 'T');
	SAME(sh[1], n);
	SAME(sh[3], 0);
	OK(kill(pid, SIGCONT));
	UNTIL(sh[1] > n + 10 && sh[3] == 1, "the threads to go on");
	sh[2] = 1;
	SAME(OK(waitpid(pid, &st, 0)), pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 1, "it ended with %#x", st);
	conf_pass();
}
