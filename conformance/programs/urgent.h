/*
 * Urgent bytes of TCP (MSG_OOB), for the programs about them: what a connection
 * has received, in each of the states that the byte can be in.
 */
#ifndef URGENT_H
#define URGENT_H

#include "outside.h"
#include <sys/ioctl.h>

static const struct {
	const char *name, *before, *after; /* what comes before the byte and after it */
	bool inlined, read;
	int taken; /* bytes read before the checkpoint */
} urgent[] = {
	{ "in the middle", "before", "behind" },
	{ "first", "", "behind" },
	{ "last", "before", "" },
	{ "alone", "", "" },
	{ "in line", "before", "behind", .inlined = true },
	{ "read", "before", "behind", .read = true },
	{ "at the mark", "before", "behind", .taken = 6 },
	{ "read, at the mark", "before", "behind", .read = true, .taken = 6 },
	{ "partly taken", "before", "behind", .taken = 2 },
};
#define URGENT ((int)(sizeof(urgent) / sizeof(urgent[0])))

static CONF_UNUSED void urgent_send(int fd, int i)
{
	mf_write_all(fd, urgent[i].before, strlen(urgent[i].before), "set-up");
	SYS(send(fd, "!", 1, MSG_OOB));
	mf_write_all(fd, urgent[i].after, strlen(urgent[i].after), "set-up");
}

/* urgent_set_up brings the receiving end into its state, once all is there. */
static CONF_UNUSED void urgent_set_up(int fd, int i)
{
	char b[16];

	if (urgent[i].inlined)
		opt_set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
	if (urgent[i].read)
		SAME(SYS(recv(fd, b, 1, MSG_OOB)), 1);
	if (urgent[i].taken)
		SAME(SYS(recv(fd, b, urgent[i].taken, MSG_WAITALL)), urgent[i].taken);
}

static CONF_UNUSED void urgent_check(int fd, int i)
{
	const char *name = urgent[i].name, *before = urgent[i].before + urgent[i].taken;
	struct pollfd f = { .fd = fd, .events = POLLPRI };
	int mark = -1;
	char b[16];
	ssize_t n;

	poll(&f, 1, 0);
	CHECK(!!(f.revents & POLLPRI) == !urgent[i].read, "%s: poll gives %#x", name, f.revents);
	SAME(opt_int(fd, SOL_SOCKET, SO_OOBINLINE), urgent[i].inlined);
	if (*before) {
		OK(ioctl(fd, SIOCATMARK, &mark));
		CHECK(mark == 0, "%s: it is at the mark", name);
		n = recv(fd, b, sizeof(b), MSG_DONTWAIT);
		CHECK(n == (ssize_t)strlen(before) && !memcmp(b, before, n), "%s: before the mark: %zd, %.*s", name, n, (int)(n > 0 ? n : 0), b);
	}
	OK(ioctl(fd, SIOCATMARK, &mark));
	CHECK(mark == 1, "%s: it is not at the mark", name);
	if (!urgent[i].inlined) {
		n = recv(fd, b, 1, MSG_OOB | MSG_DONTWAIT);
		if (urgent[i].read)
			CHECK(n < 0 && errno == EINVAL, "%s: read a second time: %zd, %s", name, n, strerror(errno));
		else
			CHECK(n == 1 && b[0] == '!', "%s: the byte: %zd, %s", name, n, strerror(errno));
	}
	n = recv(fd, b, sizeof(b), MSG_DONTWAIT);
	if (urgent[i].inlined)
		CHECK(n == 7 && !memcmp(b, "!behind", 7), "%s: behind the mark: %zd, %.*s", name, n, (int)(n > 0 ? n : 0), b);
	else if (*urgent[i].after)
		CHECK(n == 6 && !memcmp(b, "behind", 6), "%s: behind the mark: %zd, %.*s", name, n, (int)(n > 0 ? n : 0), b);
	else
		CHECK(n < 0 && errno == EAGAIN, "%s: behind the mark: %zd, %s", name, n, strerror(errno));
}

#endif
