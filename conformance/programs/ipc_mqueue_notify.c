// kind: POSIX message queues
// state: POSIX message queues whose next message is announced: by a signal with a value, by a thread (SIGEV_THREAD), by nothing but the place being taken; one asleep in receiving
// users: root nobody
// mutate: fermata.mqueue.notify fermata.mqueue_notify.value=1
// nocriu: does not know POSIX message queues
// unprivileged: the kernel's memory cannot be read here
#include "conformance.h"
#include <dirent.h>
#include <mqueue.h>

static volatile int got, value, ran;

static void on_signal(int sig, siginfo_t *si, void *uc)
{
	(void)sig, (void)uc;
	value = si->si_value.sival_int;
	got++;
}

static void on_message(union sigval v)
{
	ran = v.sival_int;
}

static mqd_t make(const char *what)
{
	char name[64];
	struct mq_attr a = { .mq_maxmsg = 3, .mq_msgsize = 20 };
	mqd_t q;

	snprintf(name, sizeof(name), "/%s-%d", what, getpid());
	q = SYS(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &a));
	SYS(mq_unlink(name));
	return q;
}

/* helper says whether the C library's thread has come to wait for messages. */
static bool helper(void)
{
	DIR *d = opendir("/proc/self/task");
	bool there = false;
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (atoi(e->d_name) > 0 && atoi(e->d_name) != getpid())
			there = conf_in_syscall(atoi(e->d_name), SYS_recvfrom);
	closedir(d);
	return there;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = 4711 };
	mqd_t s, t, none, w;
	char b[20];
	pid_t pid;

	conf_init(argc, argv);
	SYS(sigaction(SIGRTMIN + 3, &sa, NULL));
	s = make("signal");
	t = make("thread");
	none = make("none");
	w = make("wait");
	SYS(mq_notify(s, &ev));
	ev.sigev_notify = SIGEV_NONE;
	SYS(mq_notify(none, &ev));
	memset(&ev, 0, sizeof(ev));
	ev.sigev_notify = SIGEV_THREAD;
	ev.sigev_notify_function = on_message;
	ev.sigev_value.sival_int = 815;
	SYS(mq_notify(t, &ev));
	pid = SYS(fork());
	if (pid == 0) {
		ssize_t n = mq_receive(w, b, sizeof(b), NULL);

		CHECK(n == 3 && memcmp(b, "eat", 3) == 0, "asleep in mq_receive: %zd (%s)", n, strerror(errno));
		_exit(0);
	}
	UNTIL(conf_in_syscall(pid, SYS_mq_timedreceive), "the child to receive");
	UNTIL(helper(), "the thread of the C library");
	conf_ready();
	conf_wait_eintr();
	SAME(got, 0);
	SAME(ran, 0);
	OK(mq_send(w, "eat", 3, 0));
	conf_reap_ok(pid);
	CHECK(mq_notify(none, &ev) < 0 && errno == EBUSY, "the place to be told of messages is free");
	OK(mq_send(s, "x", 1, 0));
	UNTIL(got == 1, "the signal");
	SAME(value, 4711);
	OK(mq_send(t, "x", 1, 0));
	UNTIL(ran == 815, "the thread");
	/* Each is told once. */
	OK(mq_receive(s, b, sizeof(b), NULL));
	OK(mq_send(s, "x", 1, 0));
	conf_sleep_ms(10);
	SAME(got, 1);
	conf_pass();
}
