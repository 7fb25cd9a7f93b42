/* Huge pages for the programs that need some. */
#ifndef HUGEPAGES_H
#define HUGEPAGES_H

#include "memfile.h"

#define HUGE (2UL << 20)

/*
 * hp_allow lets the pool overcommit by at least n huge pages, where the harness
 * has not done so already (and undoes it). Nothing is taken from the machine by
 * this: such pages are made when they are mapped and are given back at the end.
 */
static CONF_UNUSED void hp_allow(int n)
{
	static const char path[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages";
	char buf[32];
	int fd;

	if (!conf_read_file(path, buf, sizeof(buf)))
		conf_skip("this kernel has no huge pages of 2 MiB");
	if (atoi(buf) >= n)
		return;
	snprintf(buf, sizeof(buf), "%d", n);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, buf, strlen(buf)) < 0)
		conf_skip("%s: %s", path, strerror(errno));
	close(fd);
}

/* hp_mapped ends the program without a verdict on fermata where there are no pages. */
static CONF_UNUSED char *hp_mapped(void *p)
{
	if (p == MAP_FAILED && errno == ENOMEM)
		conf_skip("no huge pages are free");
	return SYS(p);
}

/* hp_is_huge fails unless the area at p is of huge pages. */
static CONF_UNUSED void hp_is_huge(const void *p, const char *what)
{
	struct mf_area a;

	mf_need_area(p, &a, what);
	CHECK(mf_has_flag(&a, "ht"), "%s: is not of huge pages: %s", what, a.flags);
}

#endif
