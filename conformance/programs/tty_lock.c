// kind: terminals
// state: pty whose slave is locked, one that is exclusive
// users: root nobody
// mutate: tty_info_entry.locked tty_info_entry.exclusive
// nocriu: loses the lock
#include "tty.h"

#ifndef TIOCGEXCL
#define TIOCGEXCL _IOR('T', 0x40, int)
#define TIOCGPTLCK _IOR('T', 0x39, int)
#endif

int main(int argc, char **argv)
{
	struct pty excl;
	int locked, index, v;

	conf_init(argc, argv);
	locked = SYS(open("/dev/ptmx", O_RDWR | O_NOCTTY));
	SYS(ioctl(locked, TIOCGPTN, &index));
	excl = pty_open();
	SYS(ioctl(excl.slave, TIOCEXCL));
	conf_ready();
	conf_wait();
	OK(ioctl(locked, TIOCGPTLCK, &v));
	SAME(v, 1);
	CHECK(open(pty_name(index), O_RDWR | O_NOCTTY) < 0 && errno == EIO, "the locked terminal: %s", strerror(errno));
	OK(ioctl(excl.slave, TIOCGEXCL, &v));
	SAME(v, 1);
	if (!conf_user_is_root())	/* root may */
		CHECK(open(pty_name(excl.index), O_RDWR | O_NOCTTY) < 0 && errno == EBUSY, "the exclusive terminal: %s", strerror(errno));
	v = 0;
	OK(ioctl(locked, TIOCSPTLCK, &v));
	OK(open(pty_name(index), O_RDWR | O_NOCTTY));
	conf_pass();
}
