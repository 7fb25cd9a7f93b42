// kind: memory
// state: a program that would notice a child it did not make: by its SIGCHLD (caught, or queued while it was blocked), by wait, in its times, as the reaper of orphans, among its descriptors
// users: root nobody
// nocopies: the processes of both copies take turns by the same files
// mutate: sa_entry.sigaction
#include "memfile.h"

/*
 * The first process catches SIGCHLD and adopts orphans. Its child has one
 * SIGCHLD queued, with the siginfo that sigqueue gave it, and does not let it
 * come. Neither ever had a child of its own that ended.
 */
static volatile sig_atomic_t caught;

static void on_child(int sig)
{
	(void)sig;
	caught++;
}

static void no_child(const char *who, pid_t but)
{
	struct rusage u;
	struct sigaction sa;
	char link[64], path[64];
	int st;

	if (but)
		SAME(waitpid(-1, &st, WNOHANG | __WALL), 0);
	else
		CHECK(waitpid(-1, &st, WNOHANG | __WALL) < 0 && errno == ECHILD, "%s: there is a child", who);
	OK(getrusage(RUSAGE_CHILDREN, &u));
	CHECK(!u.ru_maxrss && !u.ru_minflt && !u.ru_utime.tv_usec && !u.ru_stime.tv_usec && !u.ru_nvcsw,
		"%s: a child that ended had %ld kB", who, u.ru_maxrss);
	OK(sigaction(SIGCHLD, NULL, &sa));
	CHECK(sa.sa_handler == on_child, "%s: SIGCHLD has another handler", who);
	for (int fd = 3; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		CHECK(readlink(path, link, sizeof(link)) < 0, "%s: descriptor %d is open", who, fd);
	}
	CHECK(!caught, "%s: SIGCHLD came %d times", who, caught);
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_child };
	struct timespec none = { 0, 0 };
	siginfo_t si;
	sigset_t set;
	pid_t pid;
	int on = 0;
	char *p;

	conf_init(argc, argv);
	OK(syscall(SYS_close_range, 3, ~0U, 0));
	SYS(sigaction(SIGCHLD, &sa, NULL));
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1));
	p = mf_anon(1 << 20);
	mf_fill(p, 1 << 20, 3);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	pid = SYS(fork());
	if (pid == 0) {
		union sigval v = { .sival_int = 4711 };

		SYS(sigprocmask(SIG_BLOCK, &set, NULL));
		SYS(sigqueue(getpid(), SIGCHLD, v));
		mf_mark("queued");
		mf_await("first");
		no_child("the child", 0);
		SAME(sigtimedwait(&set, &si, &none), SIGCHLD);
		SAME(si.si_code, SI_QUEUE);
		SAME(si.si_value.sival_int, 4711);
		SAME(si.si_pid, getpid());
		CHECK(sigtimedwait(&set, &si, &none) < 0, "one more SIGCHLD was queued");
		mf_check(p, 1 << 20, 3, "the child's memory");
		mf_mark("child");
		mf_await("end");
		_exit(0);
	}
	mf_await("queued");
	conf_ready();
	conf_wait();
	no_child("the parent", pid);
	OK(prctl(PR_GET_CHILD_SUBREAPER, &on));
	SAME(on, 1);
	mf_check(p, 1 << 20, 3, "the parent's memory");
	mf_mark("first");
	mf_await("child");
	mf_mark("end");
	conf_reap_ok(pid);
	SAME(caught, 1);
	conf_pass();
}
