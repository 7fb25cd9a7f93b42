/* Pseudo terminals, for the programs about them. */
#ifndef TTY_H
#define TTY_H

#include "memfile.h"
#include <sys/ioctl.h>
#include <termios.h>

struct pty {
	int master, slave, index;
};

/* pty_name is the path of the slave. */
static CONF_UNUSED const char *pty_name(int index)
{
	static __thread char path[32];

	snprintf(path, sizeof(path), "/dev/pts/%d", index);
	return path;
}

static CONF_UNUSED struct pty pty_open(void)
{
	struct pty p;
	int unlock = 0;

	p.master = SYS(open("/dev/ptmx", O_RDWR | O_NOCTTY));
	SYS(ioctl(p.master, TIOCSPTLCK, &unlock));
	SYS(ioctl(p.master, TIOCGPTN, &p.index));
	p.slave = SYS(open(pty_name(p.index), O_RDWR | O_NOCTTY));
	return p;
}

/* pty_raw makes a line that changes nothing and echoes nothing. */
static CONF_UNUSED void pty_raw(int fd)
{
	struct termios t;

	SYS(tcgetattr(fd, &t));
	cfmakeraw(&t);
	SYS(tcsetattr(fd, TCSANOW, &t));
}

/* pty_quiet keeps the line's own mode, but for echo and output processing. */
static CONF_UNUSED void pty_quiet(int fd)
{
	struct termios t;

	SYS(tcgetattr(fd, &t));
	t.c_lflag &= ~ECHO;
	t.c_oflag &= ~OPOST;
	SYS(tcsetattr(fd, TCSANOW, &t));
}

/* pty_expect reads exactly this text. */
static CONF_UNUSED void pty_expect(int fd, const char *text, const char *what)
{
	char buf[256];

	mf_read_all(fd, buf, strlen(text), what);
	CHECK(!memcmp(buf, text, strlen(text)), "%s: \"%.*s\" came, not \"%s\"", what, (int)strlen(text), buf, text);
}

/* pty_line reads one line with one read. */
static CONF_UNUSED void pty_line(int fd, const char *text, const char *what)
{
	char buf[256];
	ssize_t n = read(fd, buf, sizeof(buf));

	CHECK(n >= 0, "%s: %s", what, strerror(errno));
	CHECK(n == (ssize_t)strlen(text) && !memcmp(buf, text, n), "%s: \"%.*s\" came, not \"%s\"", what, (int)n, buf, text);
}

static CONF_UNUSED void pty_put(int fd, const char *text)
{
	mf_write_all(fd, text, strlen(text), "terminal");
}

/* pty_same compares everything that a line is set to. */
static CONF_UNUSED void pty_same(const struct termios *now, const struct termios *was, const char *what)
{
#define PTY_SAME(f) CHECK(now->f == was->f, "%s: " #f " is 0%o, was 0%o", what, (int)now->f, (int)was->f)
	PTY_SAME(c_iflag);
	PTY_SAME(c_oflag);
	PTY_SAME(c_cflag);
	PTY_SAME(c_lflag);
	PTY_SAME(c_line);
	PTY_SAME(c_ispeed);
	PTY_SAME(c_ospeed);
#undef PTY_SAME
	for (int i = 0; i < 19; i++)
		CHECK(now->c_cc[i] == was->c_cc[i], "%s: character %d is 0x%x, was 0x%x", what, i, now->c_cc[i], was->c_cc[i]);
}

#endif
