/* Memory that processes share by copy on write, and how much of it. */
#ifndef COW_H
#define COW_H

#include "memfile.h"

/* What one process has of the memory, in kB. */
struct cow_view {
	long rss, pss, private, shared;
};

static CONF_UNUSED void cow_look(const void *p, struct cow_view *v)
{
	struct mf_area a;

	mf_need_area(p, &a, "memory shared by copy on write");
	v->rss = a.rss;
	v->pss = a.pss;
	v->private = a.private_clean + a.private_dirty;
	v->shared = a.shared_clean + a.shared_dirty;
}

/* Pages that are in passing in someone's hands make some difference: 5 %. */
static CONF_UNUSED void cow_same(const void *p, const struct cow_view *was, const char *who)
{
	struct cow_view now;
	long tolerance = was->rss / 20 + 64;

	cow_look(p, &now);
	conf_log("%s: rss %ld pss %ld private %ld shared %ld kB, was %ld %ld %ld %ld", who, now.rss, now.pss, now.private,
		 now.shared, was->rss, was->pss, was->private, was->shared);
#define COW_NEAR(f)                                                                                       \
	CHECK(labs(now.f - was->f) <= tolerance, "%s: " #f " of the memory is %ld kB, was %ld kB", who, now.f, \
	      was->f)
	COW_NEAR(rss);
	COW_NEAR(private);
	COW_NEAR(shared);
	COW_NEAR(pss);
#undef COW_NEAR
}

#endif
