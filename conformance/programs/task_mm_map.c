// kind: task
// state: command line, environment and auxiliary vector moved elsewhere with prctl(PR_SET_MM_MAP)
// users: root nobody
// mutate: mm_entry.mm_arg_start mm_entry.mm_env_start
// mutate: mm_entry.mm_start_data mm_entry.mm_saved_auxv|fermata.task_extra.auxv
#include "conformance.h"
#include <elf.h>
#include <linux/prctl.h>

/* Fields 3 on of /proc/self/stat that PR_SET_MM_MAP decides. */
static void fields(unsigned long *v)
{
	char buf[2048], *p, *save, *tok;
	int i;

	CHECK(conf_read_file("/proc/self/stat", buf, sizeof(buf)), "no stat");
	p = strrchr(buf, ')') + 2;
	for (i = 3, tok = strtok_r(p, " \n", &save); tok; i++, tok = strtok_r(NULL, " \n", &save))
		if (i == 26 || i == 27 || i == 28 || (i >= 45 && i <= 51))
			*v++ = strtoul(tok, NULL, 10);
}

int main(int argc, char **argv)
{
	unsigned long auxv[64] = { AT_PAGESZ, 4096, 4711, 12345, AT_NULL, 0 }, seen[64], before[10], after[10];
	struct prctl_mm_map map = { 0 };
	char *area, buf[4096];
	unsigned long v[10];
	int fd, n;

	conf_init(argc, argv);
	area = SYS(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	memcpy(area, "moved\0command\0line", 19);
	memcpy(area + 4096, "A=1\0B=22", 9);
	fields(v);
	map.start_code = v[0];
	map.end_code = v[1];
	map.start_stack = v[2];
	map.start_data = v[3] + 8; /* a little different from what exec chose */
	map.end_data = v[4];
	map.start_brk = v[5];
	map.brk = (unsigned long)sbrk(0);
	map.arg_start = (unsigned long)area;
	map.arg_end = map.arg_start + 19;
	map.env_start = (unsigned long)area + 4096;
	map.env_end = map.env_start + 9;
	map.auxv = (__u64 *)auxv;
	map.auxv_size = 6 * sizeof(long);
	map.exe_fd = -1;
	SYS(prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0));
	fields(before);
	conf_ready();
	conf_wait();
	fields(after);
	for (n = 0; n < 10; n++)
		CHECK(after[n] == before[n], "layout field %d is %#lx, was %#lx", n, after[n], before[n]);
	CHECK(conf_read_file("/proc/self/cmdline", buf, sizeof(buf)) && !memcmp(buf, "moved\0command\0line", 19), "the command line is %s", buf);
	CHECK(conf_read_file("/proc/self/environ", buf, sizeof(buf)) && !memcmp(buf, "A=1\0B=22", 9), "the environment is %s", buf);
	fd = OK(open("/proc/self/auxv", O_RDONLY));
	n = OK(read(fd, seen, sizeof(seen)));
	CHECK(n >= 6 * (int)sizeof(long) && !memcmp(seen, auxv, 6 * sizeof(long)), "the auxiliary vector differs");
	conf_pass();
}
