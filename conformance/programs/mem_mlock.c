// kind: memory
// state: locked memory: mlock of a part of an area, mlock2 with MLOCK_ONFAULT, MAP_LOCKED, a locked file mapping
// users: root nobody
// nocopies: it looks for its own pid in /proc
// mutate: fermata.vma_extra.vmflags
// short: yes
// nocriu: drops MLOCK_ONFAULT
// nouser: it looks itself up in /proc, which shows other pids
#include "memfile.h"

static char *p[4];
static struct mf_area was[6];

static void look(struct mf_area *a)
{
	mf_need_area(p[0], &a[0], "before the locked pages");
	mf_need_area(p[0] + 4 * PAGE, &a[1], "mlock");
	mf_need_area(p[0] + 8 * PAGE, &a[2], "behind the locked pages");
	mf_need_area(p[1], &a[3], "MLOCK_ONFAULT");
	mf_need_area(p[2], &a[4], "MAP_LOCKED");
	mf_need_area(p[3], &a[5], "locked file mapping");
}

int main(int argc, char **argv)
{
	static const char *name[] = { "before", "mlock", "behind", "onfault", "map_locked", "file" };
	char before[32], after[32];
	struct mf_area now[6];
	int fd;

	conf_init(argc, argv);
	p[0] = mf_anon(12 * PAGE);
	mf_fill(p[0], 5 * PAGE, 1);
	SYS(mlock(p[0] + 4 * PAGE, 4 * PAGE));
	p[1] = mf_anon(8 * PAGE);
	SYS(mlock2(p[1], 8 * PAGE, MLOCK_ONFAULT));
	mf_fill(p[1] + 3 * PAGE, PAGE, 2);
	p[2] = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0));
	mf_file("f", 4 * PAGE, 3);
	fd = SYS(open("f", O_RDWR));
	p[3] = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	SYS(mlock(p[3], 4 * PAGE));
	close(fd);
	look(was);
	CHECK(mf_has_flag(&was[1], "lo") && !mf_has_flag(&was[0], "lo"), "set-up: mlock shows as %s", was[1].flags);
	conf_status_field(getpid(), "VmLck", before, sizeof(before));
	conf_ready();
	conf_wait();
	look(now);
	for (int i = 0; i < 6; i++)
		mf_same_area(&now[i], &was[i], name[i]);
	conf_status_field(getpid(), "VmLck", after, sizeof(after));
	CHECK(!strcmp(before, after), "%s are locked, were %s", after, before);
	for (int i = 4; i < 8; i++)
		CHECK(mf_touched(p[0] + i * PAGE), "locked page %d is not there", i);
	for (int i = 0; i < 8; i++)
		if (i != 3)
			CHECK(!mf_touched(p[1] + i * PAGE), "page %d, to be locked when it is touched, is there", i);
	mf_check(p[0], 5 * PAGE, 1, "partly locked area");
	mf_check(p[1] + 3 * PAGE, PAGE, 2, "locked when touched");
	mf_check(p[3], 4 * PAGE, 3, "locked file mapping");
	OK(munlock(p[0] + 4 * PAGE, 4 * PAGE));
	conf_pass();
}
