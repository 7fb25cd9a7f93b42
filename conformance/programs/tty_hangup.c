// kind: terminals
// state: slave whose master is closed, master whose slaves are closed, slave hung up with data left
// users: root nobody
// mutate: tty_file_entry
// nocriu: forgets that slaves were there
#include "tty.h"

int main(int argc, char **argv)
{
	struct pty orphan, widow;
	int index, fd;
	char c;

	conf_init(argc, argv);
	signal(SIGHUP, SIG_IGN);
	orphan = pty_open();
	pty_raw(orphan.slave);
	close(orphan.master);
	widow = pty_open();
	pty_raw(widow.slave);
	pty_put(widow.slave, "left");
	close(widow.slave);
	conf_ready();
	conf_wait();
	mf_eof(orphan.slave, "slave whose master is closed");
	CHECK(write(orphan.slave, "x", 1) < 0 && errno == EIO, "write to it: %s", strerror(errno));
	SAME(mf_poll(orphan.slave, POLLIN) & POLLHUP, POLLHUP);
	OK(ioctl(widow.master, TIOCGPTN, &index));
	SAME(index, widow.index);
	SAME(mf_poll(widow.master, POLLIN) & POLLHUP, POLLHUP);
	pty_expect(widow.master, "left", "what the closed slave wrote");
	CHECK(read(widow.master, &c, 1) < 0 && errno == EIO, "read without a slave: %s", strerror(errno));
	fd = OK(open(pty_name(widow.index), O_RDWR | O_NOCTTY));
	pty_raw(fd);
	pty_put(fd, "back");
	pty_expect(widow.master, "back", "slave opened again");
	conf_pass();
}
