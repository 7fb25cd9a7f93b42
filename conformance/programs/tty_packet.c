// kind: terminals
// state: pty in packet mode, with data to read, and a change of state to report
// users: root nobody
// mutate: tty_info_entry.packet_mode
// nocriu: adds to the packet
#include "tty.h"

static void byte(int fd, int want, const char *what)
{
	unsigned char buf[64];
	ssize_t n = read(fd, buf, sizeof(buf));

	CHECK(n >= 1, "%s: read gives %zd", what, n);
	CHECK(buf[0] == want, "%s: the packet begins with 0x%x, not 0x%x", what, buf[0], want);
}

int main(int argc, char **argv)
{
	char buf[64];
	int on = 1, v;
	struct pty p, off;

	conf_init(argc, argv);
	p = pty_open();
	pty_raw(p.slave);
	off = pty_open();
	SYS(ioctl(p.master, TIOCPKT, &on));
	pty_put(p.slave, "data");
	conf_ready();
	conf_wait();
	OK(ioctl(p.master, TIOCGPKT, &v));
	SAME(v, 1);
	OK(ioctl(off.master, TIOCGPKT, &v));
	SAME(v, 0);
	SAME(read(p.master, buf, sizeof(buf)), 5);
	CHECK(buf[0] == TIOCPKT_DATA && !memcmp(buf + 1, "data", 4), "the packet is 0x%x %.4s", buf[0], buf + 1);
	mf_set_nonblock(p.master, true);
	mf_empty(p.master, "packets");
	OK(tcflush(p.slave, TCIFLUSH));
	byte(p.master, TIOCPKT_FLUSHREAD, "flushed");
	mf_empty(p.master, "packets");
	conf_pass();
}
