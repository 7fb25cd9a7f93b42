// kind: processes
// state: control groups: a process and its child in groups of version 2 and of a named hierarchy, one thread in another
// users: root; only root may put tasks into groups
// mutate: task_core_entry.cg_set thread_core_entry.cg_set
#include "conformance.h"
#include <sys/mount.h>

#define TOP "fermata-conformance"
#define NAMED "name=" TOP

/* The group of a task in a hierarchy, as /proc has it. */
static bool in_group(pid_t pid, pid_t tid, const char *hierarchy, const char *group)
{
	char path[64], want[256], buf[8192], *line;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/cgroup", pid, tid);
	CHECK(conf_read_file(path, buf, sizeof(buf)), "%s", path);
	snprintf(want, sizeof(want), ":%s:%s", hierarchy, group);
	for (line = strtok(buf, "\n"); line; line = strtok(NULL, "\n"))
		if (!strcmp(strchr(line, ':'), want))
			return true;
	return false;
}

static void put(const char *file, pid_t pid)
{
	int fd = SYS(open(file, O_WRONLY));
	char buf[16];

	SYS(write(fd, buf, snprintf(buf, sizeof(buf), "%d", pid)));
	SYS(close(fd));
}

static pid_t tid;
static volatile bool looked;
static bool named;
static char top[64]; /* nobody else's */

static const char *wrong(pid_t child)
{
	char a[96], b[96], x[96], y[96];

	snprintf(a, sizeof(a), "/%s", top);
	snprintf(b, sizeof(b), "/%s/b", top);
	snprintf(x, sizeof(x), "/%s-x", top);
	snprintf(y, sizeof(y), "/%s-y", top);
	if (!in_group(getpid(), getpid(), "", a))
		return "not in the group of version 2";
	if (!in_group(child, child, "", b))
		return "the child is not in the group of version 2";
	if (named && !in_group(getpid(), getpid(), NAMED, x))
		return "not in the named hierarchy's group";
	if (named && !in_group(getpid(), tid, NAMED, y))
		return "the thread is not in the named hierarchy's group";
	return NULL;
}

static void *run(void *arg)
{
	tid = gettid();
	conf_wait();
	UNTIL(looked, "the look");
	return NULL;
}

static char *in(const char *dir, const char *suffix)
{
	char *p;

	SYS(asprintf(&p, "%s/%s%s", dir, top, suffix));
	return p;
}

int main(int argc, char **argv)
{
	const char *why;
	pthread_t t;
	pid_t child;
	int st;

	conf_init(argc, argv);
	snprintf(top, sizeof(top), TOP "-%llx", (unsigned long long)conf_ns(CLOCK_REALTIME));
	SYS(mkdir("two", 0700));
	SYS(mkdir("one", 0700));
	if (mount("none", "two", "cgroup2", 0, NULL) < 0)
		conf_skip("no cgroup2: %s", strerror(errno));
	named = mount("none", "one", "cgroup", 0, "none," NAMED) == 0;
	SYS(mkdir(in("two", ""), 0755));
	SYS(mkdir(in("two", "/b"), 0755));
	put(in("two", "/cgroup.procs"), getpid());
	child = SYS(fork());
	if (child == 0) {
		conf_wait();
		_exit(3);
	}
	put(in("two", "/b/cgroup.procs"), child);
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(tid, "the thread");
	if (named) {
		SYS(mkdir(in("one", "-x"), 0755));
		SYS(mkdir(in("one", "-y"), 0755));
		put(in("one", "-x/cgroup.procs"), getpid());
		put(in("one", "-y/tasks"), tid);
	}
	/* They need not be mounted. */
	SYS(umount2("two", MNT_DETACH));
	if (named)
		SYS(umount2("one", MNT_DETACH));
	CHECK(!wrong(child), "before: %s", wrong(child));
	conf_ready();
	conf_wait();
	why = wrong(child);
	looked = true;
	PT(pthread_join(t, NULL));
	SAME(OK(waitpid(child, &st, 0)), child);
	OK(mount("none", "two", "cgroup2", 0, NULL));
	put("two/cgroup.procs", getpid());
	rmdir(in("two", "/b"));
	rmdir(in("two", ""));
	umount("two");
	if (named && mount("none", "one", "cgroup", 0, "none," NAMED) == 0) {
		put("one/cgroup.procs", getpid());
		rmdir(in("one", "-x"));
		rmdir(in("one", "-y"));
		umount("one");
	}
	CHECK(!why, "%s", why);
	conf_pass();
}
