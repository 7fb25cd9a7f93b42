// kind: threads
// state: processes whose main thread has exited while others go on: memory, files, directory and a lock; one is a child whose main thread had an exit status of its own
// users: root nobody
// mutate: fermata.thread_extra.exited part:pages
// nouser: it looks itself up in /proc, which shows other pids
#include "conformance.h"

static char *heap;
static int fd, here;
static pid_t child;

static bool leader_gone(void)
{
	return conf_task_state(getpid()) == 'Z';
}

/* The last number of /proc/PID/stat. */
static int exit_code(pid_t pid)
{
	char path[32], buf[2048];

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	CHECK(conf_read_file(path, buf, sizeof(buf)), "%s", path);
	return atoi(strrchr(buf, ' ') + 1);
}

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return NULL;
}

/* What the process has, seen by a thread that is not its main one. */
static void *run(void *arg)
{
	struct flock l = { .l_type = F_WRLCK, .l_start = 3, .l_len = 5 };
	struct stat a, b;
	char buf[8];
	int st;

	SYS(fcntl(fd, F_SETLK, &l));
	SYS(lseek(fd, 2, SEEK_SET));
	UNTIL(leader_gone(), "the main thread's end");
	conf_ready();
	conf_wait();
	CHECK(leader_gone(), "the main thread is %c", conf_task_state(getpid()));
	for (int i = 0; i < 100; i++)
		SAME(heap[4096 * i], (char)(i * 7));
	SAME(OK(read(fd, buf, 4)), 4);
	CHECK(!memcmp(buf, "cdef", 4), "read %.4s", buf);
	OK(stat(".", &a));
	OK(fstat(here, &b));
	CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "another directory");
	CHECK(syscall(SYS_gettid) != getpid(), "this is the main thread");
	/* The lock is the process's still: a child cannot have it. */
	st = OK(fork());
	if (st == 0) {
		l.l_type = F_WRLCK;
		OK(fcntl(fd, F_GETLK, &l));
		_exit(l.l_type == F_WRLCK && l.l_pid == getppid() && l.l_start == 3 && l.l_len == 5 ? 0 : 1);
	}
	{
		pid_t p = st;

		SAME(OK(waitpid(p, &st, 0)), p);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0, "the lock is not ours");
	}
	CHECK(exit_code(child) == 5 << 8, "the child's main thread has exited with %#x", exit_code(child));
	SAME(OK(waitpid(child, &st, WNOHANG)), 0);
	OK(kill(child, SIGUSR1));
	SAME(OK(waitpid(child, &st, 0)), child);
	/* The last thread's status counts, before Linux 5.17 the main one's. */
	CHECK(WIFEXITED(st) && (WEXITSTATUS(st) == 9 || WEXITSTATUS(st) == 5), "the child ended with %#x", st);
	conf_pass();
	return NULL;
}

static void *ender(void *arg)
{
	sigset_t s;
	int sig;

	sigemptyset(&s);
	sigaddset(&s, SIGUSR1);
	sigwait(&s, &sig);
	syscall(SYS_exit, 9);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;
	sigset_t s;

	conf_init(argc, argv);
	heap = SYS(mmap(NULL, 100 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	for (int i = 0; i < 100; i++)
		heap[4096 * i] = (char)(i * 7);
	fd = SYS(open("file", O_RDWR | O_CREAT, 0600));
	SYS(write(fd, "abcdefgh", 8));
	here = SYS(open(".", O_RDONLY | O_DIRECTORY));
	sigemptyset(&s);
	sigaddset(&s, SIGUSR1);
	child = SYS(fork());
	if (child == 0) {
		SYS(sigprocmask(SIG_BLOCK, &s, NULL));
		PT(pthread_create(&t, NULL, ender, NULL));
		syscall(SYS_exit, 5);
	}
	UNTIL(conf_task_state(child) == 'Z', "the child's main thread");
	PT(pthread_create(&t, NULL, sleeper, NULL));
	PT(pthread_create(&t, NULL, run, NULL));
	pthread_exit(NULL);
}
