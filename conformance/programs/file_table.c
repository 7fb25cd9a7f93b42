// kind: files
// state: 1,500 descriptors without large gaps: read, write, append, path only, locked, shared, directories, devices, of files with several names
// users: root nobody
// mutate: reg_file_entry.pos reg_file_entry.flags fdinfo_entry.flags
#include "memfile.h"
#include <sys/file.h>

#define N 1500
enum { READ, RDWR, APPEND, PATH, CLOEXEC, SHARED, DIRECTORY, NUL, OTHER, LOCKED, KINDS };

static int fd[N];

static int make(int i)
{
	int f;

	switch (i % KINDS) {
	case READ:
		f = SYS(open("f", O_RDONLY | (i % 3 ? O_NONBLOCK : 0)));
		SYS(lseek(f, i, SEEK_SET));
		return f;
	case RDWR:
		f = SYS(open("f", O_RDWR));
		SYS(lseek(f, 2 * i, SEEK_SET));
		return f;
	case APPEND:
		return SYS(open("f", O_WRONLY | O_APPEND));
	case PATH:
		return SYS(open("f", O_PATH));
	case CLOEXEC:
		f = SYS(open("f", O_RDONLY | O_CLOEXEC));
		SYS(lseek(f, i, SEEK_SET));
		return f;
	case SHARED:
		return SYS(dup(fd[i - SHARED + READ]));
	case DIRECTORY:
		return SYS(open(".", O_RDONLY | O_DIRECTORY));
	case NUL:
		return SYS(open("/dev/null", O_RDWR));
	case OTHER:	/* the same file by another name */
		return SYS(open("g", O_RDONLY));
	}
	f = SYS(open("locked", O_RDWR));	/* fdinfo has more of this one */
	if (i < 2 * KINDS)
		SYS(flock(f, LOCK_SH));
	SYS(lseek(f, i, SEEK_SET));
	return f;
}

static void look(int i)
{
	int kind = i % KINDS, flags = SYS(fcntl(fd[i], F_GETFL)), want = 0;
	off_t at = 0;
	char path[64], link[4096];
	ssize_t n;

	switch (kind) {
	case READ:
	case SHARED:
		at = kind == READ ? i : i - SHARED + READ;
		want = O_RDONLY | (at % 3 ? O_NONBLOCK : 0);
		break;
	case RDWR:
		at = 2 * i;
		want = O_RDWR;
		break;
	case APPEND:
		want = O_WRONLY | O_APPEND;
		break;
	case PATH:
		SAME(flags & O_PATH, O_PATH);
		return;
	case CLOEXEC:
	case LOCKED:
		at = i;
		want = kind == LOCKED ? O_RDWR : O_RDONLY;
		break;
	case NUL:
		want = O_RDWR;
		break;
	}
	SAME(flags & (O_ACCMODE | O_APPEND | O_NONBLOCK), want);
	SAME(SYS(fcntl(fd[i], F_GETFD)), kind == CLOEXEC ? FD_CLOEXEC : 0);
	if (kind != NUL)
		SAME(SYS(lseek(fd[i], 0, SEEK_CUR)), at);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd[i]);
	n = SYS(readlink(path, link, sizeof(link) - 1));
	link[n] = 0;
	CHECK(kind != OTHER || !strcmp(strrchr(link, '/'), "/g"), "descriptor %d is %s", fd[i], link);
	CHECK(kind != READ || !strcmp(strrchr(link, '/'), "/f"), "descriptor %d is %s", fd[i], link);
}

int main(int argc, char **argv)
{
	struct rlimit lim;
	int one, other;

	conf_init(argc, argv);
	SYS(getrlimit(RLIMIT_NOFILE, &lim));
	if (lim.rlim_max < N + 64)
		conf_skip("only %ld descriptors are allowed", (long)lim.rlim_max);
	lim.rlim_cur = lim.rlim_max;
	SYS(setrlimit(RLIMIT_NOFILE, &lim));
	mf_file("f", 4 * N, 1);
	mf_file("locked", 4 * N, 2);
	SYS(link("f", "g"));
	for (int i = 0; i < N; i++)
		fd[i] = make(i);
	SYS(close(fd[9 * KINDS + NUL]));	/* a gap */
	conf_ready();
	conf_wait();
	for (int i = 0; i < N; i++)
		if (i != 9 * KINDS + NUL)
			look(i);
	CHECK(fcntl(fd[9 * KINDS + NUL], F_GETFD) < 0, "a descriptor is open that was not");
	SAME(SYS(lseek(fd[READ], 7, SEEK_CUR)), 7);
	SAME(SYS(lseek(fd[SHARED], 0, SEEK_CUR)), 7);
	/* the lock is held by its description, and by no other */
	one = fd[LOCKED];
	other = SYS(open("locked", O_RDWR));
	CHECK(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "the lock is gone");
	OK(flock(one, LOCK_UN));
	OK(flock(fd[KINDS + LOCKED], LOCK_UN));
	OK(flock(other, LOCK_EX | LOCK_NB));
	conf_pass();
}
