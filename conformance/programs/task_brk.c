// kind: task
// state: the program break: it can grow and shrink afterwards, and malloc goes on
// users: root nobody
// mutate: mm_entry.mm_brk mm_entry.mm_start_brk
#include "conformance.h"

int main(int argc, char **argv)
{
	char *at, *now, *m[64];
	int i;

	conf_init(argc, argv);
	at = SYS(sbrk(300 * 1024));
	memset(at, 0x5a, 300 * 1024);
	for (i = 0; i < 64; i++) {
		m[i] = malloc(5000 + i);
		memset(m[i], i, 5000 + i);
	}
	now = sbrk(0);
	conf_ready();
	conf_wait();
	SAME((long)sbrk(0), (long)now);
	for (i = 0; i < 300 * 1024; i++)
		CHECK(at[i] == 0x5a, "byte %d below the break is %#x", i, at[i]);
	for (i = 0; i < 64; i++) {
		CHECK(m[i][0] == i && m[i][4999 + i] == i, "block %d has changed", i);
		free(m[i]);
	}
	now = OK(sbrk(0));
	CHECK(OK(sbrk(1 << 20)) == now, "the break grows elsewhere");
	memset(now, 1, 1 << 20);
	OK(sbrk(-(1 << 20)));
	SAME((long)sbrk(0), (long)now);
	SAME((long)syscall(SYS_brk, now - 4096), (long)(now - 4096));
	conf_pass();
}
