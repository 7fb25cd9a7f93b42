// kind: locks
// state: locks of open file descriptions (OFD), one held through a descriptor shared with a child
// users: root nobody
// mutate: file_lock_entry.flag file_lock_entry
#include "memfile.h"

#ifndef F_OFD_GETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif

static int lock(int fd, int type, off_t start, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, F_OFD_SETLK, &l);
}

static int a;

static void child(void)
{
	mf_mark("child-set");
	conf_wait();
	mf_await("parent-closed");
}

int main(int argc, char **argv)
{
	int b, probe;
	pid_t pid;

	conf_init(argc, argv);
	mf_file("f", 1000, 1);
	a = SYS(open("f", O_RDWR));
	b = SYS(open("f", O_RDWR));
	SYS(lock(a, F_WRLCK, 0, 100));
	SYS(lock(b, F_RDLCK, 200, 0));
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	probe = OK(open("f", O_RDWR));
	CHECK(lock(probe, F_RDLCK, 50, 1) < 0 && errno == EAGAIN, "the exclusive lock is gone");
	CHECK(lock(b, F_RDLCK, 99, 1) < 0 && errno == EAGAIN, "the exclusive lock does not bind the other description");
	OK(lock(a, F_WRLCK, 50, 1));
	OK(lock(probe, F_RDLCK, 500, 1));
	CHECK(lock(probe, F_WRLCK, 700, 1) < 0 && errno == EAGAIN, "the shared lock is gone");
	OK(lock(probe, F_WRLCK, 150, 1));
	/* It ends with the description, not with a descriptor or a process. */
	close(a);
	CHECK(lock(probe, F_RDLCK, 50, 1) < 0 && errno == EAGAIN, "the lock ended with one of two descriptors");
	mf_mark("parent-closed");
	conf_reap_ok(pid);
	OK(lock(probe, F_WRLCK, 50, 1));
	close(b);
	OK(lock(probe, F_WRLCK, 0, 0));
	conf_pass();
}
