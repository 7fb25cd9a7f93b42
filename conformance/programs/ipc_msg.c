// kind: System V
// state: message queues of the tree: messages in their order with their types, long and empty ones, a full queue, the room in it, who sent and received last; one asleep for a type
// users: root nobody
// mutate: fermata.sysv_queue.messages fermata.sysv_message.type=3
// nocriu: knows only those of a namespace of its own
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <sys/ipc.h>
#include <sys/msg.h>

static struct {
	long type;
	char text[8192];
} m, r;

static void put(int q, long type, const char *text, size_t n)
{
	m.type = type;
	memcpy(m.text, text, n);
	SYS(msgsnd(q, &m, n, 0));
}

static void take(int q, long want, long type, const char *text, size_t n)
{
	ssize_t got;

	memset(&r, 0, sizeof(r));
	got = OK(msgrcv(q, &r, sizeof(r.text), want, IPC_NOWAIT));
	SAME(r.type, type);
	CHECK(got == (ssize_t)n && memcmp(r.text, text, n) == 0, "received %zd bytes: %.20s", got, r.text);
}

int main(int argc, char **argv)
{
	volatile int *there;
	static char big[8192];
	struct msqid_ds ds;
	int q, full, i;
	pid_t pid;

	conf_init(argc, argv);
	there = conf_shared(4096);
	for (i = 0; i < (int)sizeof(big); i++)
		big[i] = 'A' + i % 50;
	q = SYS(msgget(IPC_PRIVATE, 0620));
	full = SYS(msgget(IPC_PRIVATE, 0600));
	put(q, 9, "gone", 4);
	take(q, 9, 9, "gone", 4);
	put(q, 5, "five", 4);
	put(q, 3, big, sizeof(big));
	put(q, 7, "", 0);
	put(q, LONG_MAX, "last", 4);
	put(q, 5, "five too", 8);
	SYS(msgctl(full, IPC_STAT, &ds));
	ds.msg_qbytes = 100;
	SYS(msgctl(full, IPC_SET, &ds));
	put(full, 1, big, 100);
	pid = SYS(fork());
	if (pid == 0) {
		there[0] = 1;
		SAME(OK(msgrcv(q, &r, sizeof(r.text), 44, 0)), 6);
		SAME(r.type, 44);
		_exit(0);
	}
	UNTIL(there[0] && conf_in_syscall(pid, SYS_msgrcv), "the child");
	conf_ready();
	conf_wait_eintr();
	OK(msgctl(q, IPC_STAT, &ds));
	SAME(ds.msg_perm.mode & 0777, 0620);
	SAME(ds.msg_perm.uid, geteuid());
	SAME(ds.msg_qnum, 5);
	SAME(ds.msg_lspid, getpid());
	SAME(ds.msg_lrpid, getpid());
	put(q, 44, "wake", 6);
	conf_reap_ok(pid);
	take(q, 5, 5, "five", 4);
	take(q, -6, 3, big, sizeof(big));
	take(q, 0, 7, "", 0);
	take(q, 0, LONG_MAX, "last", 4);
	take(q, 0, 5, "five too", 8);
	CHECK(msgrcv(q, &r, sizeof(r.text), 0, IPC_NOWAIT) < 0 && errno == ENOMSG, "another message");
	m.type = 1;
	CHECK(msgsnd(full, &m, 1, IPC_NOWAIT) < 0 && errno == EAGAIN, "the full queue has room");
	take(full, 0, 1, big, 100);
	OK(msgctl(full, IPC_STAT, &ds));
	SAME(ds.msg_qbytes, 100);
	OK(msgctl(q, IPC_RMID, NULL));
	OK(msgctl(full, IPC_RMID, NULL));
	conf_pass();
}
