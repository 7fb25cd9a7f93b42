// kind: terminals
// state: controlling terminal: a session in the tree on a pty whose master is in the tree, foreground and background groups; ^C reaches the foreground only
// users: root nobody
// mutate: tty_info_entry.sid tty_info_entry.pgrp
// short: yes
// nocriu: refuses /dev/tty
#include "tty.h"

static struct pty p;
static volatile sig_atomic_t ints;

static void on_int(int sig)
{
	ints++;
}

static void spin(const char *mark, bool want)
{
	signal(SIGINT, on_int);
	mf_mark(mark);
	conf_wait_eintr();
	if (want) {
		UNTIL(ints == 1, "SIGINT of the foreground group");
	} else {
		mf_await("foreground-got-it");
		conf_sleep_ms(5);
		SAME(ints, 0);
	}
}

static void foreground(void)
{
	SYS(setpgid(0, 0));
	mf_mark("foreground-group");
	mf_await("is-foreground");
	spin("foreground-set", true);
	SAME(tcgetpgrp(p.slave), getpid());
	mf_mark("foreground-got-it");
}

static void background(void)
{
	SYS(setpgid(0, 0));
	spin("background-set", false);
}

static void leader(void)
{
	pid_t f, b;
	int tty;
	char buf[8];

	SYS(setsid());
	p.slave = SYS(open(pty_name(p.index), O_RDWR));	/* takes it as controlling terminal */
	tty = SYS(open("/dev/tty", O_RDWR));
	close(p.master);
	signal(SIGTTOU, SIG_IGN);
	f = mf_spawn(foreground);
	b = mf_spawn(background);
	mf_await("foreground-group");
	SYS(tcsetpgrp(p.slave, f));
	mf_mark("is-foreground");
	mf_await("foreground-set");
	mf_await("background-set");
	signal(SIGINT, on_int);
	mf_mark("leader-set");
	conf_wait_eintr();
	SAME(tcgetpgrp(p.slave), f);
	SAME(tcgetsid(p.slave), getpid());
	SAME(tcgetpgrp(tty), f);
	conf_reap_ok(f);
	conf_reap_ok(b);
	SAME(ints, 0);
	OK(tcsetpgrp(tty, getpid()));
	pty_put(tty, "by /dev/tty");
	mf_mark("leader-asked");
	UNTIL(ints == 1, "SIGINT of the leader");
	SAME(read(p.slave, buf, sizeof(buf)), 3);
	mf_mark("leader-done");
	signal(SIGHUP, SIG_IGN);
}

int main(int argc, char **argv)
{
	pid_t pid;

	conf_init(argc, argv);
	p = pty_open();
	pty_quiet(p.slave);
	close(p.slave);
	pid = mf_spawn(leader);
	mf_await("leader-set");
	conf_ready();
	conf_wait();
	pty_put(p.master, "\003");
	mf_await("leader-asked");
	pty_expect(p.master, "by /dev/tty", "what was written to /dev/tty");
	pty_put(p.master, "\003");
	pty_put(p.master, "ok\n");
	mf_await("leader-done");
	conf_reap_ok(pid);
	conf_pass();
}
