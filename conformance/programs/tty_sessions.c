// kind: terminals
// state: many sessions side by side, each with a terminal of its own: every leader keeps its own
// users: root nobody
// mutate: tty_info_entry.sid
// nocriu: refuses /dev/tty
#include "tty.h"

#define N 12

static struct pty p[N];
static pid_t pid[N];
static int mine;

static const char *mark(const char *what, int i)
{
	static char name[32];

	snprintf(name, sizeof(name), "%s-%d", what, i);
	return name;
}

static void leader(void)
{
	int tty;

	SYS(setsid());
	for (int i = 0; i < N; i++)
		if (i != mine) {
			close(p[i].slave);
			close(p[i].master);
		}
	close(p[mine].master);
	SYS(ioctl(p[mine].slave, TIOCSCTTY, 0));
	tty = SYS(open("/dev/tty", O_RDWR));
	mf_mark(mark("has-it", mine));
	conf_wait();
	SAME(tcgetsid(p[mine].slave), getpid());
	SAME(tcgetpgrp(p[mine].slave), getpid());
	SAME(OK(write(tty, "mine\n", 5)), 5);
	mf_mark(mark("wrote", mine));
	mf_await("seen");
	_exit(0);
}

int main(int argc, char **argv)
{
	conf_init(argc, argv);
	for (int i = 0; i < N; i++) {
		p[i] = pty_open();
		pty_raw(p[i].slave);
	}
	for (mine = 0; mine < N; mine++)
		pid[mine] = mf_spawn(leader);
	for (int i = 0; i < N; i++)
		mf_await(mark("has-it", i));
	conf_ready();
	conf_wait();
	for (int i = 0; i < N; i++) {
		mf_await(mark("wrote", i));
		pty_expect(p[i].master, "mine\n", "the leader");
	}
	mf_mark("seen");
	for (int i = 0; i < N; i++)
		conf_reap_ok(pid[i]);
	conf_pass();
}
