// kind: waiting
// state: waiting for file locks: flock, POSIX and open-file-description locks held by another process
// users: root nobody
// mutate: user_x86_regs_entry.di=0
#include "conf_waiters.h"
#include <sys/file.h>

/* The child holds all three, and lets go of one for each byte in its pipe. */
static int ctl[2];

static struct flock whole(void)
{
	return (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
}

static long with_flock(struct waiter *w)
{
	return syscall(SYS_flock, w->fd[0], LOCK_EX);
}

static long with_posix(struct waiter *w)
{
	struct flock f = whole();

	return syscall(SYS_fcntl, w->fd[0], F_SETLKW, &f);
}

static long with_ofd(struct waiter *w)
{
	struct flock f = whole();

	return syscall(SYS_fcntl, w->fd[0], F_OFD_SETLKW, &f);
}

static void release(struct waiter *w)
{
	OK(write(ctl[1], "x", 1));
}

static struct waiter waiters[] = {
	{ "flock", SYS_flock, with_flock, release },
	{ "fcntl(F_SETLKW)", SYS_fcntl, with_posix, release },
	{ "fcntl(F_OFD_SETLKW)", SYS_fcntl, with_ofd, release },
};

int main(int argc, char **argv)
{
	static const char *const names[] = { "flock", "posix", "ofd" };
	struct flock f = whole(), u = whole();
	int i, fd[3], p[2];
	pid_t child;
	char c;

	conf_init(argc, argv);
	u.l_type = F_UNLCK;
	SYS(pipe(ctl));
	SYS(pipe(p));
	child = SYS(fork());
	if (child == 0) {
		close(ctl[1]);
		for (i = 0; i < 3; i++)
			fd[i] = SYS(open(conf_path(names[i]), O_RDWR | O_CREAT, 0600));
		SYS(flock(fd[0], LOCK_EX));
		SYS(fcntl(fd[1], F_SETLK, &f));
		f = whole();
		SYS(fcntl(fd[2], F_OFD_SETLK, &f));
		SYS(write(p[1], "r", 1));
		for (i = 0; i < 3; i++) {
			ssize_t r;

			do
				r = read(ctl[0], &c, 1);
			while (r < 0 && conf_eintr_ok(errno));
			SAME(r, 1);
			OK(i == 0 ? flock(fd[0], LOCK_UN) : fcntl(fd[i], i == 1 ? F_SETLK : F_OFD_SETLK, &u));
		}
		_exit(0);
	}
	SAME(SYS(read(p[0], &c, 1)), 1);
	for (i = 0; i < 3; i++)
		waiters[i].fd[0] = SYS(open(conf_path(names[i]), O_RDWR));
	waiters_start(waiters, 3);
	conf_ready();
	conf_wait();
	waiters_finish(waiters, 3);
	conf_reap_ok(child);
	conf_pass();
}
