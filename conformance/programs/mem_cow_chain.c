// kind: memory
// state: memory shared by copy on write over four generations, the first of which has exited
// users: root nobody
// nocopies: the processes of both copies take turns by the same files
// mutate: part:pages
// nouser: which pages are shared copy-on-write is known by their frames, which only root can see
#include "cow.h"

/*
 * The main process holds no part of the memory (DONTFORK memory of a child
 * that is gone): generation 0 fills and exits, 1-3 share what it left.
 */
static char *p;
static size_t n;

static void generation(int g)
{
	struct cow_view v;
	char name[32];
	pid_t next = 0;

	/* Each generation changes one page in eight, its own ones. */
	for (size_t at = g * PAGE; at < n; at += 8 * PAGE)
		mf_fill(p + at, PAGE, 100 + g);
	if (g < 3) {
		next = SYS(fork());
		if (!next) {
			generation(g + 1);
			_exit(0);
		}
	}
	if (g == 0) {
		char buf[32];
		int n = snprintf(buf, sizeof(buf), "%d", next), fd;

		fd = SYS(open(conf_path("first"), O_WRONLY | O_CREAT, 0644));
		mf_write_all(fd, buf, n, "set-up");
		_exit(0);
	}
	snprintf(name, sizeof(name), "set-%d", g);
	mf_mark(name);
	mf_await("all-set");
	cow_look(p, &v);
	snprintf(name, sizeof(name), "looked-%d", g);
	mf_mark(name);
	conf_wait();
	snprintf(name, sizeof(name), "generation %d", g);
	cow_same(p, &v, name);
	for (size_t at = 0; at < n; at += PAGE) {
		int owner = at / PAGE % 8;

		mf_check(p + at, PAGE, owner <= g ? 100 + owner : 1, name);
	}
	snprintf(name, sizeof(name), "checked-%d", g);
	mf_mark(name);
	for (int i = 1; i <= 3; i++) {
		snprintf(name, sizeof(name), "checked-%d", i);
		mf_await(name);
	}
	if (next)
		conf_reap_ok(next);
	if (g == 1)
		mf_mark("done");
}

int main(int argc, char **argv)
{
	char name[32];
	pid_t pid, first;
	char buf[32];

	conf_init(argc, argv);
	SYS(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	n = 8 << 20;
	pid = SYS(fork());
	if (!pid) {
		p = mf_anon(n);
		SYS(madvise(p, n, MADV_NOHUGEPAGE));
		for (size_t at = 0; at < n; at += PAGE)
			mf_fill(p + at, PAGE, 1);
		generation(0);
	}
	conf_reap_ok(pid);
	/* Generation 1 is ours now. */
	CHECK(conf_read_file(conf_path("first"), buf, sizeof(buf)), "set-up");
	first = atoi(buf);
	for (int i = 1; i <= 3; i++) {
		snprintf(name, sizeof(name), "set-%d", i);
		mf_await(name);
	}
	mf_mark("all-set");
	for (int i = 1; i <= 3; i++) {
		snprintf(name, sizeof(name), "looked-%d", i);
		mf_await(name);
	}
	conf_ready();
	conf_wait();
	mf_await("done");
	conf_reap_ok(first);
	conf_pass();
}
