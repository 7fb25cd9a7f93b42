// kind: terminals
// state: pty pairs: line settings, window size, numbers with a gap, open flags, both ends usable
// users: root nobody
// mutate: termios_entry winsize_entry
// short: yes
#include "tty.h"

int main(int argc, char **argv)
{
	struct winsize ws = { 43, 132, 1056, 688 }, now;
	struct termios t, was[2], is;
	struct pty p[3];
	int pgrp, again, fl, index;
	struct stat st, owner;

	conf_init(argc, argv);
	for (int i = 0; i < 3; i++)
		p[i] = pty_open();
	close(p[1].master);	/* leaves a gap in the numbers */
	close(p[1].slave);
	SYS(tcgetattr(p[0].slave, &t));
	t.c_iflag = (t.c_iflag | IGNBRK | INLCR | IUTF8) & ~ICRNL;
	t.c_oflag = ONLCR | OPOST | OCRNL;
	t.c_lflag = ISIG | NOFLSH | TOSTOP | ECHOE;
	t.c_cflag = (t.c_cflag & ~CSIZE) | CS7 | PARENB | HUPCL;
	t.c_cc[VINTR] = 7;
	t.c_cc[VMIN] = 3;
	t.c_cc[VTIME] = 5;
	t.c_cc[VEOL2] = 'x';
	cfsetispeed(&t, B57600);
	cfsetospeed(&t, B57600);
	SYS(tcsetattr(p[0].slave, TCSANOW, &t));
	SYS(tcgetattr(p[0].slave, &was[0]));
	pty_raw(p[2].slave);
	SYS(tcgetattr(p[2].slave, &was[1]));
	SYS(ioctl(p[0].master, TIOCSWINSZ, &ws));
	again = SYS(open(pty_name(p[0].index), O_RDONLY | O_NOCTTY | O_NONBLOCK));
	SYS(fcntl(p[2].master, F_SETFD, FD_CLOEXEC));
	fl = SYS(fcntl(again, F_GETFL));
	SYS(fchmod(p[0].slave, 0644));
	SYS(fstat(p[0].slave, &owner));
	conf_ready();
	conf_wait();
	for (int i = 0; i < 3; i += 2) {
		OK(ioctl(p[i].master, TIOCGPTN, &index));
		SAME(index, p[i].index);
		OK(tcgetattr(p[i].slave, &is));
		pty_same(&is, &was[i / 2], i ? "raw line" : "line");
		CHECK(isatty(p[i].slave) && isatty(p[i].master), "not a terminal");
		CHECK(ttyname(p[i].slave) && !strcmp(ttyname(p[i].slave), pty_name(p[i].index)), "the terminal is %s", ttyname(p[i].slave));
	}
	OK(fstat(p[0].slave, &st));
	SAME(st.st_mode, owner.st_mode);
	SAME(st.st_uid, owner.st_uid);
	SAME(st.st_gid, owner.st_gid);
	OK(ioctl(p[0].slave, TIOCGWINSZ, &now));
	CHECK(!memcmp(&now, &ws, sizeof(ws)), "the window is %dx%d (%dx%d)", now.ws_row, now.ws_col, now.ws_xpixel, now.ws_ypixel);
	OK(ioctl(p[2].slave, TIOCGWINSZ, &now));
	SAME(now.ws_row, 0);
	SAME(fcntl(again, F_GETFL), fl);
	SAME(fcntl(p[2].master, F_GETFD), FD_CLOEXEC);
	mf_empty(again, "terminal");
	CHECK(write(again, "x", 1) < 0 && errno == EBADF, "a read-only terminal can be written");
	CHECK(ioctl(p[0].slave, TIOCGPGRP, &pgrp) < 0 && errno == ENOTTY, "the terminal is a controlling one");
	pty_put(p[2].slave, "from slave");
	pty_expect(p[2].master, "from slave", "master");
	pty_put(p[2].master, "from master");
	pty_expect(p[2].slave, "from master", "slave");
	pty_put(p[0].slave, "a\n");
	pty_expect(p[0].master, "a\r\n", "master, with the line's processing");
	conf_pass();
}
