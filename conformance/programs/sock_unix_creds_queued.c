// kind: unix sockets
// state: messages in the queue with the credentials of their senders (SCM_CREDENTIALS), a child and the program itself
// users: root nobody
// mutate: fermata.sk_packet_extra.pid
// nocriu: refuses queued credentials
// nouser: who sent a queued message only root can say again
#include "sockaddr.h"

static int sk[2];

static void child(void)
{
	SYS(send(sk[0], "child", 5, 0));
	mf_mark("child-set");
	conf_wait();
	mf_await("parent-done");
}

static void from(pid_t pid, const char *data)
{
	union {
		char buf[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} u;
	char buf[16];
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof(u.buf) };
	ssize_t n = recvmsg(sk[1], &m, MSG_DONTWAIT);
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	struct ucred cr;

	CHECK(n == (ssize_t)strlen(data) && !memcmp(buf, data, n), "the message is %.*s, not %s", (int)n, buf, data);
	CHECK(c && c->cmsg_type == SCM_CREDENTIALS, "the message of %s has no credentials", data);
	memcpy(&cr, CMSG_DATA(c), sizeof(cr));
	CHECK(cr.pid == pid && cr.uid == getuid() && cr.gid == getgid(), "the message of %s came from pid %d uid %d gid %d, not %d",
	      data, cr.pid, cr.uid, cr.gid, pid);
}

int main(int argc, char **argv)
{
	pid_t pid;

	conf_init(argc, argv);
	SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, sk));
	opt_set(sk[1], SOL_SOCKET, SO_PASSCRED, 1);
	SYS(send(sk[0], "parent", 6, 0));
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	from(getpid(), "parent");
	from(pid, "child");
	SAME(send(sk[0], "later", 5, 0), 5);
	from(getpid(), "later");
	mf_mark("parent-done");
	conf_reap_ok(pid);
	conf_pass();
}
