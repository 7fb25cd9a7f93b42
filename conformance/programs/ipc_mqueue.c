// kind: POSIX message queues
// state: POSIX message queues: messages of several priorities, long and empty ones, a full queue; two descriptions of one queue with flags of their own, one shared with a child; a queue without a name any more
// users: root nobody
// mutate: fermata.mqueue.messages fermata.mqueue.name fermata.mqueue.mode=3 fermata.mqueue.maxmsg=3
// nocriu: does not know POSIX message queues
// unprivileged: the kernel's memory cannot be read here
#include "conformance.h"
#include <mqueue.h>

static char big[8192];

static mqd_t make(const char *name, int flags, long n, long size)
{
	struct mq_attr a = { .mq_maxmsg = n, .mq_msgsize = size };

	return SYS(mq_open(name, flags | O_CREAT | O_EXCL, 0640, &a));
}

static void expect(mqd_t q, const char *text, unsigned prio)
{
	char b[8192];
	unsigned p;
	ssize_t n = OK(mq_receive(q, b, sizeof(b), &p));

	CHECK(n == (ssize_t)strlen(text) && memcmp(b, text, n) == 0, "received %.*s, not %s", (int)n, b, text);
	SAME(p, prio);
}

int main(int argc, char **argv)
{
	char name[64], full[64], gone[64], b[8192];
	struct mq_attr a;
	struct stat st;
	unsigned p;
	mqd_t q, reader, f, u;
	pid_t pid;
	ssize_t n;
	int i, state;

	conf_init(argc, argv);
	for (i = 0; i < (int)sizeof(big); i++)
		big[i] = 'a' + i % 26;
	snprintf(name, sizeof(name), "/conf-%d", getpid());
	snprintf(full, sizeof(full), "/full-%d", getpid());
	snprintf(gone, sizeof(gone), "/gone-%d", getpid());
	q = make(name, O_RDWR | O_NONBLOCK, 7, 8192);
	SYS(fchmod(q, 0620));
	reader = SYS(mq_open(name, O_RDONLY));
	SYS(mq_send(q, "low", 3, 1));
	SYS(mq_send(q, "high", 4, 40));
	SYS(mq_send(q, big, sizeof(big), 1));
	SYS(mq_send(q, "high too", 8, 40));
	SYS(mq_send(q, "", 0, 2));
	SYS(mq_send(q, "urgent", 6, 32767));
	f = make(full, O_WRONLY, 2, 10);
	SYS(mq_send(f, "one", 3, 0));
	SYS(mq_send(f, "two", 3, 0));
	u = make(gone, O_RDWR, 4, 100);
	SYS(mq_unlink(gone));
	SYS(fchmod(u, 0604));
	SYS(mq_send(u, "unlinked", 8, 9));
	pid = SYS(fork());
	if (pid == 0) {
		conf_wait();
		expect(u, "unlinked", 9);
		OK(mq_send(u, "back", 4, 3));
		_exit(0);
	}
	conf_ready();
	conf_wait();
	conf_reap_ok(pid);
	expect(u, "back", 3);
	CHECK(mq_unlink(gone) < 0 && errno == ENOENT, "the queue without a name has one");
	OK(fstat(u, &st));
	SAME(st.st_mode & 07777, 0604);
	SAME(st.st_uid, geteuid());
	OK(fstat(q, &st));
	SAME(st.st_mode & 07777, 0620);
	SAME(st.st_uid, geteuid());
	SAME(fcntl(q, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
	SAME(fcntl(reader, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY);
	SAME(fcntl(q, F_GETFD), FD_CLOEXEC);
	OK(mq_getattr(q, &a));
	SAME(a.mq_maxmsg, 7);
	SAME(a.mq_msgsize, 8192);
	SAME(a.mq_curmsgs, 6);
	expect(reader, "urgent", 32767);
	expect(reader, "high", 40);
	expect(q, "high too", 40);
	expect(reader, "", 2);
	expect(q, "low", 1);
	n = OK(mq_receive(reader, b, sizeof(b), &p));
	CHECK(n == sizeof(big) && memcmp(b, big, n) == 0, "the long message is another one");
	CHECK(mq_receive(q, b, sizeof(b), &p) < 0 && errno == EAGAIN, "more messages than before");
	/* Full, as it was: a limit that has passed is not waited for. */
	CHECK(mq_timedsend(f, "x", 1, 0, &(struct timespec){ 0, 0 }) < 0 && errno == ETIMEDOUT, "the full queue has room");
	/* The names lead to them. */
	i = OK(mq_open(full, O_RDONLY));
	expect(i, "one", 0);
	expect(i, "two", 0);
	OK(mq_send(q, "more", 4, 5));
	i = OK(mq_open(name, O_RDONLY));
	expect(i, "more", 5);
	OK(mq_unlink(name));
	OK(mq_unlink(full));
	state = waitpid(-1, NULL, WNOHANG);
	CHECK(state < 0 && errno == ECHILD, "another child");
	conf_pass();
}
