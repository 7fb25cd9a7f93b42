// kind: memory
// state: vdso, vvar and vsyscall in their places, and working
// users: root nobody
// mutate: mm_entry.mm_saved_auxv
// short: yes
#include "memfile.h"
#include <sys/auxv.h>

static struct mf_map was, now;

static void vdso_lines(const struct mf_map *m, char *out)
{
	const char *p = m->text;

	for (*out = 0; *p; p += strcspn(p, "\n") + 1) {
		int n = strcspn(p, "\n");

		if (memmem(p, n, "[v", 2))
			out += sprintf(out, "%.*s\n", n, p);
	}
}

int main(int argc, char **argv)
{
	char before[1024], after[1024], auxv[2][1024] = { "" };
	const char *vdso;
	struct timespec a, b;

	conf_init(argc, argv);
	mf_map_read(&was);
	vdso_lines(&was, before);
	CHECK(conf_read_file("/proc/self/auxv", auxv[0], sizeof(auxv[0])), "set-up: no auxv");
	conf_ready();
	conf_wait();
	mf_map_read(&now);
	vdso_lines(&now, after);
	CHECK(!strcmp(before, after), "the map had:\n%sand has:\n%s", before, after);
	CHECK(conf_read_file("/proc/self/auxv", auxv[1], sizeof(auxv[1])), "no auxv");
	CHECK(!memcmp(auxv[0], auxv[1], sizeof(auxv[0])), "/proc/self/auxv is another");
	vdso = (const char *)getauxval(AT_SYSINFO_EHDR);
	CHECK(vdso && !memcmp(vdso, "\177ELF", 4), "no vdso at %p", vdso);
	for (int i = 0; i < 1000; i++) {
		OK(clock_gettime(CLOCK_MONOTONIC, &a));
		OK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b));
		int64_t d = (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec;

		CHECK(d >= 0 && d < 1000000000, "the vdso's clock is %lld ns behind the kernel's", (long long)d);
		OK(clock_gettime(CLOCK_REALTIME, &a));
		OK(syscall(SYS_clock_gettime, CLOCK_REALTIME, &b));
		d = (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec;
		CHECK(d >= 0 && d < 1000000000, "the vdso's real-time clock is %lld ns behind the kernel's", (long long)d);
	}
	CHECK(sched_getcpu() >= 0, "getcpu");
#ifdef __x86_64__
	if (strstr(before, "[vsyscall]")) {
		time_t (*vtime)(time_t *) = (void *)0xffffffffff600400;
		time_t t = vtime(NULL);

		CHECK(labs(t - time(NULL)) <= 1, "vsyscall says it is %ld", (long)t);
	}
#endif
	conf_pass();
}
