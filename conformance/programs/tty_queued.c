// kind: terminals
// state: pty pairs with unread data: output and input, raw and by lines, with a line begun
// users: root nobody
// mutate: tty_data_entry
// short: yes
// nocriu: mixes up the lines
#include "tty.h"

int main(int argc, char **argv)
{
	struct pty raw, line;
	int n;

	conf_init(argc, argv);
	raw = pty_open();
	pty_raw(raw.slave);
	line = pty_open();
	pty_quiet(line.slave);
	mf_write_stream(raw.master, 1000, 1, 0, "set-up");
	mf_write_stream(raw.slave, 1500, 2, 0, "set-up");
	pty_put(line.master, "first line\nsecond\n\nbegun");
	pty_put(line.slave, "output");
	UNTIL(ioctl(raw.slave, FIONREAD, &n) == 0 && n == 1000, "the input to arrive");
	UNTIL(mf_poll(line.slave, POLLIN) == POLLIN, "the lines to arrive");
	conf_ready();
	conf_wait();
	OK(ioctl(raw.slave, FIONREAD, &n));
	SAME(n, 1000);
	mf_expect_stream(raw.slave, 1000, 1, 0, "raw input");
	mf_expect_stream(raw.master, 1500, 2, 0, "raw output");
	pty_line(line.slave, "first line\n", "first line");
	pty_line(line.slave, "second\n", "second line");
	pty_line(line.slave, "\n", "empty line");
	mf_set_nonblock(line.slave, true);
	mf_empty(line.slave, "the line begun");
	pty_put(line.master, " and\177\177\177ended\n");	/* erased, while it isn't complete */
	UNTIL(mf_poll(line.slave, POLLIN) == POLLIN, "the line");
	pty_line(line.slave, "begun ended\n", "the line begun");
	pty_expect(line.master, "output", "output");
	mf_set_nonblock(line.master, true);
	mf_empty(line.master, "output");
	mf_set_nonblock(raw.slave, true);
	mf_empty(raw.slave, "raw input");
	conf_pass();
}
