// kind: locks
// state: POSIX record locks of two processes: ranges, shared and exclusive, to the end of the file; one waits for another's
// users: root nobody
// mutate: file_lock_entry.type file_lock_entry
// short: yes
// nouser: it looks itself up in /proc, which shows other pids
#include "memfile.h"

static int lock(int fd, int cmd, int type, off_t start, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, cmd, &l);
}

static pid_t mother;

/* what another process sees when it asks for a lock */
static void sees(int fd, int type, off_t at, int want_type, off_t start, off_t len, pid_t pid)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };

	OK(fcntl(fd, F_GETLK, &l));
	SAME(l.l_type, want_type);
	if (want_type != F_UNLCK) {
		SAME(l.l_start, start);
		SAME(l.l_len, len);
		SAME(l.l_pid, pid);
	}
}

static void child(void)
{
	int fd = SYS(open("f", O_RDWR));

	SYS(lock(fd, F_SETLK, F_WRLCK, 1000, 10));
	mf_mark("child-set");
	/* Waits for the mother's lock. */
	SYS(lock(fd, F_SETLKW, F_WRLCK, 100, 1));
	mf_mark("child-got-it");
	mf_await("mother-done");
}

static void asker(void)
{
	int fd = OK(open("f", O_RDWR));

	sees(fd, F_WRLCK, 0, F_UNLCK, 0, 0, 0);
	sees(fd, F_RDLCK, 100, F_WRLCK, 100, 50, mother);
	sees(fd, F_RDLCK, 150, F_UNLCK, 0, 0, 0);
	sees(fd, F_RDLCK, 200, F_UNLCK, 0, 0, 0);
	sees(fd, F_WRLCK, 200, F_RDLCK, 200, 100, mother);
	sees(fd, F_WRLCK, 5000, F_WRLCK, 2000, 0, mother);
}

int main(int argc, char **argv)
{
	int fd;
	pid_t pid;

	conf_init(argc, argv);
	mother = getpid();
	mf_file("f", 4000, 1);
	fd = SYS(open("f", O_RDWR));
	SYS(lock(fd, F_SETLK, F_WRLCK, 100, 50));
	SYS(lock(fd, F_SETLK, F_RDLCK, 200, 100));
	SYS(lock(fd, F_SETLK, F_WRLCK, 2000, 0));
	pid = mf_spawn(child);
	mf_await("child-set");
	UNTIL(conf_in_syscall(pid, SYS_fcntl), "the child to wait for a lock");
	conf_ready();
	conf_wait();
	conf_reap_ok(mf_spawn(asker));
	sees(fd, F_WRLCK, 1005, F_WRLCK, 1000, 10, pid);
	CHECK(lock(fd, F_SETLK, F_RDLCK, 1000, 1) < 0 && (errno == EAGAIN || errno == EACCES), "the child's lock is gone");
	CHECK(access("child-got-it", F_OK) < 0, "the child got the mother's lock");
	UNTIL(conf_in_syscall(pid, SYS_fcntl), "the child to wait again");
	OK(lock(fd, F_SETLK, F_UNLCK, 100, 50));
	mf_await("child-got-it");
	sees(fd, F_WRLCK, 100, F_WRLCK, 100, 1, pid);
	mf_mark("mother-done");
	conf_reap_ok(pid);
	sees(fd, F_WRLCK, 1005, F_UNLCK, 0, 0, 0);
	conf_pass();
}
