// kind: notification
// state: epoll of pipes, sockets, timers, signals and a listener, with one asleep in it
// users: root nobody
// mutate: eventpoll_tfd_entry
#include "memfile.h"
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/un.h>

static volatile pid_t tid;
static int ep, p[2], sk[2], hup[2], tfd, sfd, lfd;

static void add(int fd, uint32_t events, uint32_t data)
{
	struct epoll_event e = { .events = events, .data.u32 = data };

	SYS(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
}

/* Sleeps in epoll_wait over the checkpoint, then reports what it sees. */
static void *waiter(void *arg)
{
	tid = syscall(SYS_gettid);
	for (unsigned want = 1; want <= 6; want++) {
		struct epoll_event e;
		char name[32];
		int n = epoll_wait(ep, &e, 1, -1);

		CHECK(n == 1 || (n < 0 && conf_eintr_ok(errno)), "epoll_wait gives %d: %s", n, strerror(errno));
		if (n < 0) {
			want--;
			continue;
		}
		SAME(e.data.u32, want);
		snprintf(name, sizeof(name), "seen-%u", want);
		mf_mark(name);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "listener" };
	struct itimerspec it = { .it_value.tv_nsec = 20000000 };
	sigset_t set;
	pthread_t t;
	int c;

	conf_init(argc, argv);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	ep = SYS(epoll_create1(0));
	SYS(pipe(p));
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sk));
	SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, hup));
	tfd = SYS(timerfd_create(CLOCK_MONOTONIC, 0));
	sfd = SYS(signalfd(-1, &set, 0));
	lfd = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	SYS(bind(lfd, (struct sockaddr *)&un, sizeof(un)));
	SYS(listen(lfd, 5));
	add(p[0], EPOLLIN | EPOLLET, 1);
	add(sk[0], EPOLLIN | EPOLLET, 2);
	add(tfd, EPOLLIN | EPOLLET, 3);
	add(sfd, EPOLLIN | EPOLLET, 4);
	add(lfd, EPOLLIN | EPOLLET, 5);
	add(hup[1], EPOLLRDHUP | EPOLLET, 6);
	PT(pthread_create(&t, NULL, waiter, NULL));
	UNTIL(tid && conf_in_syscall(tid, SYS_epoll_wait), "the thread to sleep in epoll_wait");
	conf_ready();
	conf_wait();
	SAME(write(p[1], "x", 1), 1);
	mf_await("seen-1");
	SAME(write(sk[1], "x", 1), 1);
	mf_await("seen-2");
	OK(timerfd_settime(tfd, 0, &it, NULL));
	mf_await("seen-3");
	OK(kill(getpid(), SIGUSR1));
	mf_await("seen-4");
	c = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(connect(c, (struct sockaddr *)&un, sizeof(un)));
	mf_await("seen-5");
	OK(shutdown(hup[0], SHUT_WR));
	PT(pthread_join(t, NULL));
	conf_pass();
}
