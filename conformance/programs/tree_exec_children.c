// kind: trees
// state: children that went apart from their parent: one that has executed a
// state: program and has a layout, vdso and stack of its own, one whose heap grew
// state: after the fork
// users: root nobody
// mutate: mm_entry.mm_brk
// short: yes
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <sys/auxv.h>

/* executed checks what a program of its own has. */
static int executed(void)
{
	char exe[2][PATH_MAX] = { "", "" };
	struct timespec a, b;
	unsigned long vdso = getauxval(AT_SYSINFO_EHDR);

	SYS(readlink("/proc/self/exe", exe[0], PATH_MAX - 1));
	SYS(clock_gettime(CLOCK_MONOTONIC, &a));
	SYS(mknod(conf_path("executed"), S_IFREG | 0644, 0)); /* without a descriptor that could be seen */
	conf_wait();
	SAME(getauxval(AT_SYSINFO_EHDR), vdso);
	CHECK(vdso && !memcmp((void *)vdso, "\177ELF", 4), "no vdso at %#lx", vdso);
	OK(clock_gettime(CLOCK_MONOTONIC, &b));
	CHECK(b.tv_sec >= a.tv_sec && b.tv_sec - a.tv_sec < 100, "the clock went from %ld s to %ld s", (long)a.tv_sec, (long)b.tv_sec);
	OK(readlink("/proc/self/exe", exe[1], PATH_MAX - 1));
	CHECK(!strcmp(exe[0], exe[1]), "the program was %s, is %s", exe[0], exe[1]);
	_exit(0);
}

int main(int argc, char **argv)
{
	volatile unsigned long *grown;
	pid_t exec, heap;

	conf_init(argc, argv);
	if (argc == 3)
		return executed();
	grown = conf_shared(4096);
	exec = SYS(fork());
	if (!exec) {
		execl("/proc/self/exe", "executed", conf_dir, "child", NULL);
		conf_fail("set-up: exec: %s", strerror(errno));
	}
	heap = SYS(fork());
	if (!heap) {
		char *more = sbrk(1 << 20);
		char exe[2][PATH_MAX] = { "", "" };

		CHECK(more != (void *)-1, "set-up: sbrk: %s", strerror(errno));
		memset(more, 0x5a, 1 << 20);
		SYS(readlink("/proc/self/exe", exe[0], PATH_MAX - 1));
		*grown = (unsigned long)sbrk(0);
		conf_wait();
		SAME((unsigned long)sbrk(0), *grown);
		for (int i = 0; i < 1 << 20; i++)
			SAME(more[i], 0x5a);
		OK(readlink("/proc/self/exe", exe[1], PATH_MAX - 1));
		CHECK(!strcmp(exe[0], exe[1]), "the program was %s, is %s", exe[0], exe[1]);
		_exit(0);
	}
	UNTIL(*grown && access(conf_path("executed"), F_OK) == 0, "the children");
	conf_ready();
	conf_wait();
	conf_reap_ok(exec);
	conf_reap_ok(heap);
	conf_pass();
}
