// kind: task
// state: the vdso in its place: clock_gettime and getcpu go on through addresses taken before
// users: root nobody
// mutate: mm_entry.mm_saved_auxv|fermata.task_extra.auxv
#include "conformance.h"
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>

static long vma(const char *name, unsigned long *end)
{
	unsigned long a, b, found = 0;
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");

	while (fgets(line, sizeof(line), f)) {
		if (strstr(line, name) && sscanf(line, "%lx-%lx", &a, &b) == 2) {
			CHECK(!found, "two areas called %s", name);
			found = a;
			*end = b;
		}
	}
	fclose(f);
	return found;
}

/* A function's address, from the vdso's own symbol table. */
static void *sym(unsigned long base, const char *name)
{
	ElfW(Ehdr) *eh = (void *)base;
	ElfW(Phdr) *ph = (void *)(base + eh->e_phoff);
	ElfW(Dyn) *d = NULL;
	ElfW(Sym) *symtab = NULL;
	const char *str = NULL;
	unsigned long load = 0;
	int i, n = 0;

	for (i = 0; i < eh->e_phnum; i++) {
		if (ph[i].p_type == PT_LOAD)
			load = base + ph[i].p_offset - ph[i].p_vaddr;
		if (ph[i].p_type == PT_DYNAMIC)
			d = (void *)(base + ph[i].p_offset);
	}
	for (; d && d->d_tag; d++) {
		if (d->d_tag == DT_SYMTAB)
			symtab = (void *)(load + d->d_un.d_ptr);
		if (d->d_tag == DT_STRTAB)
			str = (void *)(load + d->d_un.d_ptr);
	}
	/* The string table follows the symbol table. */
	n = ((char *)str - (char *)symtab) / sizeof(*symtab);
	for (i = 0; i < n; i++)
		if (!strcmp(str + symtab[i].st_name, name))
			return (void *)(load + symtab[i].st_value);
	return NULL;
}

static unsigned long auxv_vdso(void)
{
	unsigned long v[128];
	int i, fd = OK(open("/proc/self/auxv", O_RDONLY | O_CLOEXEC));
	ssize_t n = OK(read(fd, v, sizeof(v)));

	close(fd);
	for (i = 0; i + 1 < (int)(n / sizeof(long)); i += 2)
		if (v[i] == AT_SYSINFO_EHDR)
			return v[i + 1];
	return 0;
}

int main(int argc, char **argv)
{
	int (*gettime)(clockid_t, struct timespec *);
	long (*cpu)(unsigned *, unsigned *, void *);
	unsigned long at, end, vv, vend, e;
	struct timespec a, b, c;
	unsigned n;

	conf_init(argc, argv);
	at = vma("[vdso]", &end);
	vv = vma("[vvar]", &vend);
	if (!at)
		conf_skip("this kernel has no vdso");
	SAME(at, getauxval(AT_SYSINFO_EHDR));
	gettime = sym(at, "__vdso_clock_gettime");
	cpu = sym(at, "__vdso_getcpu");
	CHECK(gettime && cpu, "set-up: the vdso lacks a function");
	conf_ready();
	conf_wait();
	SAME(vma("[vdso]", &e), at);
	SAME(e, end);
	SAME(vma("[vvar]", &e), vv);
	SAME(e, vend);
	SAME(auxv_vdso(), at); /* what a debugger, or exec'd code, looks at */
	SAME((long)sym(at, "__vdso_clock_gettime"), (long)gettime);
	SAME(cpu(&n, NULL, NULL), 0);
	/* It must agree with the system call, in every clock it knows. */
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_TAI };
	for (n = 0; n < sizeof(clocks) / sizeof(clocks[0]); n++) {
		OK(syscall(SYS_clock_gettime, clocks[n], &a));
		SAME(gettime(clocks[n], &b), 0);
		OK(syscall(SYS_clock_gettime, clocks[n], &c));
		CHECK((b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec)) &&
		      (c.tv_sec > b.tv_sec || (c.tv_sec == b.tv_sec && c.tv_nsec >= b.tv_nsec)),
		      "clock %d: %ld.%09ld by the vdso, the kernel says %ld.%09ld and then %ld.%09ld", clocks[n], b.tv_sec, b.tv_nsec,
		      a.tv_sec, a.tv_nsec, c.tv_sec, c.tv_nsec);
	}
	conf_pass();
}
