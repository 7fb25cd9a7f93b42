// kind: unix sockets
// state: who the peer is, where it is another user
// users: root; has a child that becomes another user
// mutate: fermata.sock_extra.peer_pid
// nocriu: makes sockets by whichever task comes first
#include "sockaddr.h"

static void child(void)
{
	int fd;

	SYS(setresgid(12345, 12345, 12345));
	SYS(setresuid(23456, 23456, 23456));
	fd = un_connected(SOCK_STREAM, "server");
	mf_mark("child-set");
	mf_await("parent-done");
	close(fd);
}

int main(int argc, char **argv)
{
	struct ucred c;
	socklen_t n = sizeof(c);
	int l, fd;
	pid_t pid;

	conf_init(argc, argv);
	SYS(chmod(conf_dir, 0777));
	l = un_listener(SOCK_STREAM, "server", 1);
	SYS(chmod("server", 0666));
	pid = mf_spawn(child);
	fd = SYS(accept(l, NULL, NULL));
	mf_await("child-set");
	conf_ready();
	conf_wait();
	OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n));
	SAME(c.pid, pid);
	SAME(c.uid, 23456);
	SAME(c.gid, 12345);
	mf_mark("parent-done");
	conf_reap_ok(pid);
	conf_pass();
}
