/* Addresses of sockets, for the programs about them. */
#ifndef SOCKADDR_H
#define SOCKADDR_H

#include "memfile.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/un.h>

/* un_addr is the address of a name; a name that begins with @ is abstract. */
static CONF_UNUSED socklen_t un_addr(struct sockaddr_un *a, const char *name)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	strcpy(a->sun_path, name);
	if (name[0] == '@') {
		a->sun_path[0] = 0;
		return offsetof(struct sockaddr_un, sun_path) + strlen(name);
	}
	return offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1;
}

static CONF_UNUSED int un_bound(int type, const char *name)
{
	struct sockaddr_un a;
	socklen_t n = un_addr(&a, name);
	int fd = SYS(socket(AF_UNIX, type, 0));

	SYS(bind(fd, (struct sockaddr *)&a, n));
	return fd;
}

static CONF_UNUSED int un_listener(int type, const char *name, int backlog)
{
	int fd = un_bound(type, name);

	SYS(listen(fd, backlog));
	return fd;
}

static CONF_UNUSED int un_connected(int type, const char *name)
{
	struct sockaddr_un a;
	socklen_t n = un_addr(&a, name);
	int fd = SYS(socket(AF_UNIX, type, 0));

	CHECK(connect(fd, (struct sockaddr *)&a, n) == 0, "connect to %s: %s", name, strerror(errno));
	return fd;
}

/* un_is fails unless the name of a socket (or of its peer) is the one given. */
static CONF_UNUSED void un_is(int fd, bool peer, const char *name, const char *what)
{
	struct sockaddr_un want, a = { 0 };
	socklen_t k = *name ? un_addr(&want, name) : sizeof(sa_family_t), n = sizeof(a);

	OK(peer ? getpeername(fd, (struct sockaddr *)&a, &n) : getsockname(fd, (struct sockaddr *)&a, &n));
	SAME(a.sun_family, AF_UNIX);
	CHECK(n == k, "%s: the name has %d bytes, not %d (%s)", what, (int)n, (int)k, a.sun_path + !a.sun_path[0]);
	CHECK(!*name || !memcmp(a.sun_path, want.sun_path, k - sizeof(sa_family_t)), "%s: the name is %s, not %s", what,
	      a.sun_path + !a.sun_path[0], name);
}

/* in_addr_of is a loopback address of the family (port 0: any). */
static CONF_UNUSED socklen_t in_loop(struct sockaddr_storage *s, int family, int port)
{
	memset(s, 0, sizeof(*s));
	s->ss_family = family;
	if (family == AF_INET) {
		struct sockaddr_in *a = (void *)s;

		a->sin_port = htons(port);
		a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(*a);
	}
	struct sockaddr_in6 *a = (void *)s;

	a->sin6_port = htons(port);
	a->sin6_addr = in6addr_loopback;
	return sizeof(*a);
}

static CONF_UNUSED int in_port(int fd, bool peer)
{
	struct sockaddr_storage s;
	socklen_t n = sizeof(s);

	OK(peer ? getpeername(fd, (struct sockaddr *)&s, &n) : getsockname(fd, (struct sockaddr *)&s, &n));
	return ntohs(s.ss_family == AF_INET ? ((struct sockaddr_in *)&s)->sin_port : ((struct sockaddr_in6 *)&s)->sin6_port);
}

static CONF_UNUSED int in_bound(int family, int type)
{
	struct sockaddr_storage s;
	socklen_t n = in_loop(&s, family, 0);
	int fd = SYS(socket(family, type, 0));

	SYS(bind(fd, (struct sockaddr *)&s, n));
	return fd;
}

static CONF_UNUSED int in_listener(int family, int backlog)
{
	int fd = in_bound(family, SOCK_STREAM);

	SYS(listen(fd, backlog));
	return fd;
}

static CONF_UNUSED int in_connected(int family, int type, int port)
{
	struct sockaddr_storage s;
	socklen_t n = in_loop(&s, family, port);
	int fd = SYS(socket(family, type, 0));

	CHECK(connect(fd, (struct sockaddr *)&s, n) == 0, "connect to port %d: %s", port, strerror(errno));
	return fd;
}

/* in_pair makes a TCP connection with itself; [0] connected, [1] accepted. */
static CONF_UNUSED void in_pair(int family, int sk[2])
{
	int l = in_listener(family, 1);

	sk[0] = in_connected(family, SOCK_STREAM, in_port(l, false));
	sk[1] = SYS(accept(l, NULL, NULL));
	close(l);
}

/* opt_int is an integer option, after (OK) or before (SYS) the checkpoint. */
static CONF_UNUSED int opt_int(int fd, int level, int name)
{
	int v = 0;
	socklen_t n = sizeof(v);

	CHECK(getsockopt(fd, level, name, &v, &n) == 0, "getsockopt %d/%d: %s", level, name, strerror(errno));
	return v;
}

static CONF_UNUSED void opt_set(int fd, int level, int name, int v)
{
	CHECK(setsockopt(fd, level, name, &v, sizeof(v)) == 0, "set-up: setsockopt %d/%d: %s", level, name, strerror(errno));
}

#endif
