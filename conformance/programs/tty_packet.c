// kind: terminals
// state: pty in packet mode, with data to read; changes of state that have not been reported yet; one that comes afterwards
// users: root nobody
// mutate: tty_info_entry.packet_mode fermata.tty_extra.packet_status
// nocriu: adds to the packet
// unprivileged: the kernel's memory cannot be read here
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
	struct pty p, off, flushed, flow, stopped;
	struct termios t;

	conf_init(argc, argv);
	p = pty_open();
	pty_raw(p.slave);
	off = pty_open();
	SYS(ioctl(p.master, TIOCPKT, &on));
	pty_put(p.slave, "data");
	flushed = pty_open();
	SYS(ioctl(flushed.master, TIOCPKT, &on));
	SYS(tcflush(flushed.slave, TCIOFLUSH));
	flow = pty_open();
	pty_put(flow.slave, "data");
	SYS(ioctl(flow.master, TIOCPKT, &on));
	SYS(tcgetattr(flow.slave, &t));
	t.c_iflag ^= IXON;
	SYS(tcsetattr(flow.slave, TCSANOW, &t));
	stopped = pty_open();
	SYS(ioctl(stopped.master, TIOCPKT, &on));
	SYS(tcflow(stopped.slave, TCOOFF));
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
	byte(flushed.master, TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE, "flushed before");
	mf_set_nonblock(flushed.master, true);
	mf_empty(flushed.master, "packets of who was flushed");
	byte(flow.master, t.c_iflag & IXON ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP, "other flow control");
	SAME(read(flow.master, buf, sizeof(buf)), 5);
	CHECK(buf[0] == TIOCPKT_DATA && !memcmp(buf + 1, "data", 4), "the packet is 0x%x %.4s", buf[0], buf + 1);
	byte(stopped.master, TIOCPKT_STOP, "stopped");
	OK(tcflow(stopped.slave, TCOON));
	byte(stopped.master, TIOCPKT_START, "started");
	conf_pass();
}
