// kind: notification
// state: inotify: watches of files and directories, numbers with gaps, masks; events arrive under the same number
// users: root nobody
// mutate: inotify_wd_entry.wd inotify_wd_entry.mask inotify_wd_entry
// short: yes
// nocriu: forgets IN_ONESHOT
// unprivileged: no path was found for watch
#include "memfile.h"
#include <sys/inotify.h>

static int ifd;

/* expect reads events until one of wd with a bit of mask came. */
static void expect(int wd, uint32_t mask, const char *name)
{
	char buf[4096] __attribute__((aligned(8)));
	ssize_t n = read(ifd, buf, sizeof(buf));

	CHECK(n > 0, "no event of watch %d: %s", wd, strerror(errno));
	for (char *p = buf; p < buf + n;) {
		struct inotify_event *e = (void *)p;

		if (e->wd == wd && e->mask & mask && (!name || !strcmp(name, e->name)))
			return;
		p += sizeof(*e) + e->len;
	}
	conf_fail("no event 0x%x of watch %d among %zd bytes", mask, wd, n);
}

static void quiet(const char *what)
{
	char buf[4096];
	ssize_t n = read(ifd, buf, sizeof(buf));

	CHECK(n < 0 && errno == EAGAIN, "%s: there is an event of %zd bytes", what, n);
}

int main(int argc, char **argv)
{
	int dir, file, tmp, once, moved, fd;

	conf_init(argc, argv);
	SYS(mkdir("dir", 0755));
	SYS(mkdir("old", 0755));
	mf_file("file", 10, 1);
	mf_file("old/f", 10, 1);
	mf_file("once", 10, 1);
	mf_file("tmp", 10, 1);
	ifd = SYS(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
	tmp = SYS(inotify_add_watch(ifd, "tmp", IN_MODIFY));
	dir = SYS(inotify_add_watch(ifd, "dir", IN_CREATE | IN_DELETE));
	SYS(inotify_rm_watch(ifd, tmp));
	file = SYS(inotify_add_watch(ifd, "file", IN_ATTRIB | IN_CLOSE_WRITE));
	moved = SYS(inotify_add_watch(ifd, "old/f", IN_MODIFY));
	SYS(inotify_add_watch(ifd, "file", IN_OPEN | IN_MASK_ADD));
	once = SYS(inotify_add_watch(ifd, "once", IN_OPEN | IN_ONESHOT));
	SYS(rename("old", "new"));
	expect(tmp, IN_IGNORED, NULL);
	quiet("set-up");
	conf_ready();
	conf_wait();
	SAME(fcntl(ifd, F_GETFL), O_RDONLY | O_NONBLOCK);
	SAME(fcntl(ifd, F_GETFD), FD_CLOEXEC);
	quiet("after the restore");
	mf_mark("dir/a");
	expect(dir, IN_CREATE, "a");
	OK(unlink("dir/a"));
	expect(dir, IN_DELETE, "a");
	OK(chmod("file", 0600));
	expect(file, IN_ATTRIB, NULL);
	fd = OK(open("file", O_WRONLY));
	expect(file, IN_OPEN, NULL);
	SAME(write(fd, "x", 1), 1);
	quiet("what was not watched");
	close(fd);
	expect(file, IN_CLOSE_WRITE, NULL);
	close(OK(open("once", O_RDONLY)));
	expect(once, IN_OPEN, NULL);
	close(OK(open("once", O_RDONLY)));
	quiet("a one-shot");
	fd = OK(open("new/f", O_WRONLY));
	SAME(write(fd, "x", 1), 1);
	expect(moved, IN_MODIFY, NULL);
	/* The next number is the next one. */
	SAME(inotify_add_watch(ifd, "tmp", IN_MODIFY), once + 1);
	OK(unlink("file"));
	expect(file, IN_ATTRIB, NULL);
	conf_pass();
}
