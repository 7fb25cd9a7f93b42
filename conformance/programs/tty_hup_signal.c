// kind: terminals
// state: session on a pty: closing the master after the restore sends SIGHUP to the leader, whose end sends it to the foreground group
// users: root nobody
// mutate: tty_info_entry.sid
#include "tty.h"

static struct pty p;
static volatile sig_atomic_t hups;

static void on_hup(int sig)
{
	hups++;
}

static void job(void)
{
	close(p.master);
	SYS(setpgid(0, 0));
	signal(SIGHUP, on_hup);
	mf_mark("job-set");
	conf_wait_eintr();
	UNTIL(hups, "SIGHUP of the foreground group");
	SAME(hups, 1);
	mf_mark("job-done");
}

static void leader(void)
{
	char c;
	pid_t pid;

	close(p.slave);
	SYS(setsid());
	p.slave = SYS(open(pty_name(p.index), O_RDWR | O_NOCTTY));
	SYS(ioctl(p.slave, TIOCSCTTY, 0));
	close(p.master);
	signal(SIGTTOU, SIG_IGN);
	signal(SIGHUP, on_hup);
	pid = mf_spawn(job);
	mf_await("job-set");
	SYS(tcsetpgrp(p.slave, pid));
	mf_mark("leader-set");
	mf_await("master-closed");
	UNTIL(hups, "SIGHUP of the leader");
	SAME(read(p.slave, &c, 1), 0);
	CHECK(open("/dev/tty", O_RDWR) < 0 && errno == ENXIO, "there is a controlling terminal: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	pid_t pid;

	conf_init(argc, argv);
	p = pty_open();
	pid = mf_spawn(leader);
	mf_await("leader-set");
	close(p.slave);
	conf_ready();
	conf_wait();
	close(p.master);
	mf_mark("master-closed");
	conf_reap_ok(pid);	/* the session ends with its leader */
	mf_await("job-done");
	conf_pass();
}
