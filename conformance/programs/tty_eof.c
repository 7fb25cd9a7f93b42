// kind: terminals
// state: pty pair with an end of file (^D) typed and not yet read, before and after lines
// users: root nobody
// mutate: tty_data_entry
// nocriu: reads the end of file away
#include "tty.h"

int main(int argc, char **argv)
{
	struct pty p;

	conf_init(argc, argv);
	p = pty_open();
	pty_quiet(p.slave);
	pty_put(p.master, "line\n\004next\n");
	UNTIL(mf_poll(p.slave, POLLIN) == POLLIN, "the input to arrive");
	conf_ready();
	conf_wait();
	pty_line(p.slave, "line\n", "line");
	pty_line(p.slave, "", "end of file");
	pty_line(p.slave, "next\n", "next line");
	conf_pass();
}
