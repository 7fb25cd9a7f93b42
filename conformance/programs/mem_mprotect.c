// kind: memory
// state: one mapping in pieces of different protection, with content under all of them, also under PROT_NONE
// users: root nobody
// nocopies: the kernel does not merge areas that came by fork
// mutate: part:pages vma_entry.prot=3
// short: yes
#include "memfile.h"

int main(int argc, char **argv)
{
	static const int prot[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE, PROT_READ | PROT_EXEC,
				    PROT_READ | PROT_WRITE | PROT_EXEC, PROT_WRITE, PROT_EXEC, PROT_NONE };
	static const char *shown[] = { "rw-", "r--", "---", "r-x", "rwx", "-w-", "--x", "---" };
	struct mf_area a;
	char *p[2];
	int fd;

	conf_init(argc, argv);
	mf_file("f", 24 * PAGE, 50);
	fd = SYS(open("f", O_RDWR));
	p[0] = mf_anon(24 * PAGE);
	p[1] = SYS(mmap(NULL, 24 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < 8; i++) {
			mf_fill(p[k] + i * 3 * PAGE, 2 * PAGE, i);
			SYS(mprotect(p[k] + i * 3 * PAGE, 3 * PAGE, prot[i]));
		}
	conf_ready();
	conf_wait();
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < 8; i++) {
			char *q = p[k] + i * 3 * PAGE;

			mf_need_area(q, &a, "piece");
			CHECK(!strncmp(a.perms, shown[i], 3), "piece %d is %s, not %s", i, a.perms, shown[i]);
			OK(mprotect(q, 3 * PAGE, PROT_READ | PROT_WRITE));
			mf_check(q, 2 * PAGE, i, "content of a piece");
			if (k)
				mf_check_at(q + 2 * PAGE, PAGE, 50, (i * 3 + 2) * PAGE, "the file under a piece");
			else
				mf_zero(q + 2 * PAGE, PAGE, "untouched page of a piece");
			mf_fill(q, 3 * PAGE, 9);
		}
	mf_need_area(p[0], &a, "whole");
	CHECK(a.end >= (uintptr_t)p[0] + 24 * PAGE, "pieces made equal do not become one: %lx-%lx", a.start, a.end);
	conf_pass();
}
