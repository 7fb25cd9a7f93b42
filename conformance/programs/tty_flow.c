// kind: terminals
// state: pty whose output is stopped (^S), with a writer that waits for it
// users: root nobody
// mutate: fermata.tty_extra.stopped
// nocriu: forgets that output is stopped
#include "tty.h"

int main(int argc, char **argv)
{
	struct pty p;

	conf_init(argc, argv);
	p = pty_open();
	pty_quiet(p.slave);
	pty_put(p.slave, "before");
	pty_put(p.master, "\023");	/* ^S */
	UNTIL(!(mf_poll(p.slave, POLLOUT) & POLLOUT), "the output to stop");
	mf_set_nonblock(p.slave, true);
	conf_ready();
	conf_wait();
	CHECK(write(p.slave, "x", 1) < 0 && errno == EAGAIN, "the stopped terminal can be written");
	pty_expect(p.master, "before", "output from before");
	pty_put(p.master, "\021");	/* ^Q */
	UNTIL(mf_poll(p.slave, POLLOUT) & POLLOUT, "the output to go on");
	pty_put(p.slave, "after");
	pty_expect(p.master, "after", "output that went on");
	conf_pass();
}
