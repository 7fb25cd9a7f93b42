// kind: memory
// state: memory shared by copy on write between a parent and two children: contents, and really one copy still
// users: root nobody
// nocopies: pages that both copies share count for less in each
// mutate: part:pages
// short: yes
// nouser: which pages are shared copy-on-write is known by their frames, which only root can see
#include "cow.h"

static char *p;
static size_t n;

static void check(int changed, const char *who)
{
	for (int q = 0; q < 4; q++)
		mf_check_at(p + q * n / 4, n / 4, q == changed ? 10 + q : 1, q * n / 4, who);
}

static void child(int quarter)
{
	struct cow_view v;
	char name[32];

	mf_fill_at(p + quarter * n / 4, n / 4, 10 + quarter, quarter * n / 4);
	snprintf(name, sizeof(name), "child-%d", quarter);
	mf_mark(name);
	mf_await("all-set");
	cow_look(p, &v);
	snprintf(name, sizeof(name), "looked-%d", quarter);
	mf_mark(name);
	conf_wait();
	snprintf(name, sizeof(name), "child %d", quarter);
	cow_same(p, &v, name);
	check(quarter, name);
	snprintf(name, sizeof(name), "checked-%d", quarter);
	mf_mark(name);
	/* Writing must stay one's own. */
	mf_await("parent-checked");
	mf_await("checked-1");
	mf_await("checked-3");
	memset(p, quarter, n);
	snprintf(name, sizeof(name), "wrote-%d", quarter);
	mf_mark(name);
}

static void child1(void) { child(1); }
static void child3(void) { child(3); }

int main(int argc, char **argv)
{
	struct cow_view v;
	pid_t a, b;

	conf_init(argc, argv);
	n = 16 << 20;
	p = mf_anon(n);
	SYS(madvise(p, n, MADV_NOHUGEPAGE));
	mf_fill(p, n, 1);
	a = mf_spawn(child1);
	b = mf_spawn(child3);
	mf_await("child-1");
	mf_await("child-3");
	mf_mark("all-set");
	cow_look(p, &v);
	CHECK(v.shared == v.rss, "set-up: %ld of %ld kB are shared", v.shared, v.rss);
	mf_await("looked-1");
	mf_await("looked-3");
	conf_ready();
	conf_wait();
	cow_same(p, &v, "parent");
	check(-1, "parent");
	mf_mark("parent-checked");
	mf_await("wrote-1");
	mf_await("wrote-3");
	check(-1, "parent, after the children wrote");
	conf_reap_ok(a);
	conf_reap_ok(b);
	conf_pass();
}
