// kind: POSIX message queues
// state: a POSIX message queue whose next message is announced to a process outside the tree
// users: root nobody
// refused: outside the tree, is to be told of the next message
#include "conformance.h"
#include "outside.h"
#include <mqueue.h>

int main(int argc, char **argv)
{
	struct sigevent ev = { .sigev_notify = SIGEV_NONE };
	struct mq_attr a = { .mq_maxmsg = 3, .mq_msgsize = 20 };
	volatile int *there;
	char name[64];
	mqd_t q;

	conf_init(argc, argv);
	there = conf_shared(4096);
	snprintf(name, sizeof(name), "/outside-%d", getpid());
	q = SYS(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &a));
	SYS(mq_unlink(name));
	if (out_fork() == 0) {
		SYS(mq_notify(q, &ev));
		*there = 1;
		while (!conf_gone())
			conf_sleep_ms(1);
		_exit(0);
	}
	UNTIL(*there, "the process outside");
	conf_ready();
	conf_wait();
	OK(mq_send(q, "x", 1, 0));
	conf_pass();
}
