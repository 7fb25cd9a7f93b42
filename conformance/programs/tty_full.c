// kind: terminals
// state: ptys with more unread input than the line discipline has room for, raw and by lines, and output up to what fits
// users: root nobody
// mutate: tty_data_entry fermata.tty_extra.behind
// nocriu: loses what lies behind
// unprivileged: more than can be kept
#include "tty.h"

#define LINES 700

int main(int argc, char **argv)
{
	struct pty raw, line;
	size_t in, out;
	char text[32], buf[8192];
	int n, i;

	conf_init(argc, argv);
	raw = pty_open();
	pty_raw(raw.slave);
	line = pty_open();
	pty_quiet(line.slave);
	mf_write_stream(raw.master, 9000, 1, 0, "set-up");
	in = 9000;
	mf_set_nonblock(raw.slave, true);
	out = mf_flood(raw.slave, 2, 0);
	mf_set_nonblock(raw.slave, false);
	for (i = 0; i < LINES; i++) {
		snprintf(text, sizeof(text), "line %d\n", i);
		pty_put(line.master, text);
	}
	UNTIL(ioctl(raw.slave, FIONREAD, &n) == 0 && n == 4095, "the input to arrive");
	UNTIL(mf_poll(line.slave, POLLIN) == POLLIN, "the lines to arrive");
	conf_sleep_ms(20);
	conf_ready();
	conf_wait();
	mf_expect_stream(raw.slave, in, 1, 0, "raw input");
	mf_expect_stream(raw.master, out, 2, 0, "raw output");
	for (i = 0; i < LINES; i++) {
		snprintf(text, sizeof(text), "line %d\n", i);
		n = OK(read(line.slave, buf, sizeof(buf)));
		CHECK(n == (int)strlen(text) && !memcmp(buf, text, n), "line %d is \"%.*s\"", i, n, buf);
	}
	mf_set_nonblock(raw.slave, true);
	mf_empty(raw.slave, "raw input");
	mf_set_nonblock(line.slave, true);
	mf_empty(line.slave, "lines");
	conf_pass();
}
