// kind: terminals
// state: job control on a pty: a job stopped by ^Z, one stopped reading in the background; both go on when the shell says so
// users: root nobody
// mutate: tty_info_entry.pgrp core_entry
// nocriu: refuses a task stopped by SIGTSTP
// nouser: it looks itself up in /proc, which shows other pids
#include "tty.h"

static struct pty p;

static void stopped_job(void)
{
	SYS(setpgid(0, 0));
	mf_mark("one-group");
	mf_await("one-foreground");
	mf_mark("one-runs");
	pty_line(p.slave, "for one\n", "the first job");
	mf_mark("one-read");
	for (;;)
		pause();	/* till ^\ */
}

static void reading_job(void)
{
	SYS(setpgid(0, 0));
	mf_mark("two-runs");
	pty_line(p.slave, "for two\n", "the second job");	/* SIGTTIN */
	mf_mark("two-read");
}

static void wait_stop(pid_t pid, int sig)
{
	int st;

	CHECK(waitpid(pid, &st, WUNTRACED) == pid, "waiting for job %d: %s", pid, strerror(errno));
	CHECK(WIFSTOPPED(st) && WSTOPSIG(st) == sig, "job %d has status 0x%x, not stopped by signal %d", pid, st, sig);
}

static void shell(void)
{
	pid_t one, two;
	int st;

	SYS(setsid());
	p.slave = SYS(open(pty_name(p.index), O_RDWR));
	close(p.master);
	signal(SIGTTOU, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	one = mf_spawn(stopped_job);
	mf_await("one-group");
	SYS(tcsetpgrp(p.slave, one));
	mf_mark("one-foreground");
	mf_await("one-runs");
	mf_mark("type-stop");
	wait_stop(one, SIGTSTP);
	SYS(tcsetpgrp(p.slave, getpid()));
	two = mf_spawn(reading_job);
	UNTIL(conf_task_state(two) == 'T', "the second job to stop");
	mf_mark("shell-set");
	conf_wait();
	SAME(conf_task_state(one), 'T');
	SAME(conf_task_state(two), 'T');
	wait_stop(two, SIGTTIN);	/* not yet waited for: reported now */
	SAME(tcgetpgrp(p.slave), getpid());
	OK(tcsetpgrp(p.slave, two));	/* fg %2 */
	mf_mark("type-two");
	OK(kill(-two, SIGCONT));
	mf_await("two-read");
	conf_reap_ok(two);
	OK(tcsetpgrp(p.slave, one));	/* fg %1 */
	OK(kill(-one, SIGCONT));
	CHECK(waitpid(one, &st, WCONTINUED) == one && WIFCONTINUED(st), "the first job did not go on");
	mf_mark("type-one");
	mf_await("one-read");
	mf_mark("type-quit");
	CHECK(waitpid(one, &st, 0) == one && WIFSIGNALED(st) && WTERMSIG(st) == SIGQUIT, "the first job ended with status 0x%x", st);
	mf_mark("shell-done");
}

int main(int argc, char **argv)
{
	struct rlimit none = { 0, 0 };
	pid_t pid;

	conf_init(argc, argv);
	SYS(setrlimit(RLIMIT_CORE, &none));
	p = pty_open();
	pty_quiet(p.slave);
	close(p.slave);
	pid = mf_spawn(shell);
	mf_await("type-stop");
	pty_put(p.master, "\032");	/* ^Z */
	mf_await("shell-set");
	conf_ready();
	conf_wait();
	mf_await("type-two");
	pty_put(p.master, "for two\n");
	mf_await("type-one");
	pty_put(p.master, "for one\n");
	mf_await("type-quit");
	pty_put(p.master, "\034");	/* ^\ */
	mf_await("shell-done");
	conf_reap_ok(pid);
	conf_pass();
}
