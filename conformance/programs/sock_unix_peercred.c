// kind: unix sockets
// state: who the peer is (SO_PEERCRED): of a pair made by the parent, of an accepted connection, of a connected one
// users: root nobody
// mutate: fermata.sock_extra.peer_pid
// nocriu: makes sockets by whichever task comes first
#include "sockaddr.h"

static int pair[2];
static pid_t mother;

static void is(int fd, pid_t pid, const char *what)
{
	struct ucred c;
	socklen_t n = sizeof(c);

	OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n));
	CHECK(c.pid == pid && c.uid == getuid() && c.gid == getgid(), "%s: the peer is pid %d uid %d gid %d, not %d %d %d", what,
	      c.pid, c.uid, c.gid, pid, getuid(), getgid());
}

static void child(void)
{
	int fd = un_connected(SOCK_STREAM, "server");

	close(pair[0]);
	mf_mark("child-set");
	conf_wait();
	is(fd, mother, "the child's connection");
	is(pair[1], mother, "the child's end of the pair");
	mf_await("parent-done");
}

int main(int argc, char **argv)
{
	int l, fd, never;
	pid_t pid;

	conf_init(argc, argv);
	mother = getpid();
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	l = un_listener(SOCK_STREAM, "server", 1);
	pid = mf_spawn(child);
	fd = SYS(accept(l, NULL, NULL));
	mf_await("child-set");
	close(pair[1]);
	never = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	is(fd, pid, "set-up");
	conf_ready();
	conf_wait();
	is(fd, pid, "the accepted connection");
	is(pair[0], getpid(), "the parent's end of the pair");
	struct ucred c;
	socklen_t n = sizeof(c);
	OK(getsockopt(never, SOL_SOCKET, SO_PEERCRED, &c, &n));
	SAME(c.pid, 0);
	SAME(c.uid, -1U);
	mf_mark("parent-done");
	conf_reap_ok(pid);
	conf_pass();
}
