// kind: trees
// state: a tree that forks all the time in a cgroup of its own, whose freezer stops it: nobody escapes, and the group runs on afterwards
// users: root; only root may make a cgroup
// modes: left
// moving: tasks maps status fds
#include "conformance.h"
#include <sys/mount.h>
#include <sys/stat.h>

/*
 * Three processes fork children that fork once more, as fast as they can, in a
 * new group of version 2. A checkpoint freezes and thaws the group. (What group a
 * tree is in is no state of its own: a restored one is in that of the restoring
 * process.)
 */
static volatile long *sh; /* [i]: turns of worker i; [8]: end */
static char group[4096];

static void put(const char *file, const char *what)
{
	char path[4200];
	int fd;

	snprintf(path, sizeof path, "%s/%s", group, file);
	fd = OK(open(path, O_WRONLY | O_CLOEXEC));
	SAME(OK(write(fd, what, strlen(what))), (long)strlen(what));
	close(fd);
}

/* Enters a group of its own. */
static void enter(void)
{
	char line[4096], point[2048], type[256];
	FILE *f = fopen("/proc/self/mounts", "re");
	struct timespec t;
	int found = 0;

	while (!found && f && fgets(line, sizeof line, f))
		found = sscanf(line, "%*s %2047s %255s", point, type) == 2 && !strcmp(type, "cgroup2");
	if (f)
		fclose(f);
	if (!found)
		conf_skip("no cgroup2 is mounted");
	clock_gettime(CLOCK_REALTIME, &t);
	snprintf(group, sizeof group, "%s/fermata-conformance-%ld%09ld", point, (long)t.tv_sec, (long)t.tv_nsec);
	if (mkdir(group, 0755) < 0)
		conf_skip("no cgroup can be made");
	put("cgroup.procs", "0");
}

static void worker(int i)
{
	pid_t pid;
	int st;
	long n;

	for (n = 1; !sh[8]; n++) {
		pid = OK(fork());
		if (pid == 0) {
			pid = OK(fork());
			if (pid == 0)
				_exit(n % 100);
			SAME(OK(waitpid(pid, &st, 0)), pid);
			_exit(WEXITSTATUS(st));
		}
		SAME(OK(waitpid(pid, &st, 0)), pid);
		CHECK(WIFEXITED(st) && WEXITSTATUS(st) == n % 100, "a child ended with %#x", st);
		CHECK(waitpid(-1, &st, WNOHANG) < 0 && errno == ECHILD, "a child too many");
		sh[i] = n;
	}
	_exit(0);
}

/* Leaves the group. */
static void leave(void)
{
	char path[4200], b[64] = "";
	int fd, i;

	snprintf(path, sizeof path, "%s/cgroup.freeze", group);
	fd = OK(open(path, O_RDONLY | O_CLOEXEC));
	SAME(OK(read(fd, b, sizeof b)), 2);
	close(fd);
	CHECK(b[0] == '0', "the group is frozen: %s", b);
	snprintf(path, sizeof path, "%s/../cgroup.procs", group);
	fd = OK(open(path, O_WRONLY | O_CLOEXEC));
	SAME(OK(write(fd, "0", 1)), 1);
	close(fd);
	for (i = 0; rmdir(group) < 0; i++) {
		CHECK(i < 1000, "%s cannot be removed", group);
		usleep(1000);
	}
}

int main(int argc, char **argv)
{
	pid_t pid[3];
	long before[3];
	int i;

	conf_init(argc, argv);
	enter();
	sh = conf_shared(4096);
	for (i = 0; i < 3; i++) {
		pid[i] = SYS(fork());
		if (pid[i] == 0)
			worker(i);
	}
	UNTIL(sh[0] > 5 && sh[1] > 5 && sh[2] > 5, "the workers");
	conf_ready();
	conf_wait();
	for (i = 0; i < 3; i++)
		before[i] = sh[i];
	for (i = 0; i < 3; i++)
		UNTIL(sh[i] > before[i] + 5, "the workers to go on");
	sh[8] = 1;
	for (i = 0; i < 3; i++)
		conf_reap_ok(pid[i]);
	leave();
	conf_pass();
}
