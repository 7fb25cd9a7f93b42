// kind: trees
// state: a hundred processes in ten families, with memory that each has changed for itself
// users: root nobody
// mutate: part:pages
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"

#define FAMILIES 10
#define KIDS 9

int main(int argc, char **argv)
{
	volatile int *count;
	char *mem;
	pid_t fam[FAMILIES], kid[KIDS];
	int i, j, k;

	conf_init(argc, argv);
	count = conf_shared(4096);
	mem = SYS(mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	memset(mem, 0x11, 64 * 4096);
	for (i = 0; i < FAMILIES; i++) {
		fam[i] = SYS(fork());
		if (fam[i])
			continue;
		for (j = 0; j < KIDS; j++) {
			kid[j] = SYS(fork());
			if (kid[j])
				continue;
			mem[(i * KIDS + j) % 64 * 4096] = i * KIDS + j;
			__atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
			conf_wait();
			for (k = 0; k < 64; k++)
				SAME(mem[k * 4096], k == (i * KIDS + j) % 64 ? i * KIDS + j : 0x11);
			_exit(0);
		}
		__atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
		conf_wait();
		for (j = 0; j < KIDS; j++)
			conf_reap_ok(kid[j]);
		_exit(0);
	}
	UNTIL(*count == FAMILIES * (KIDS + 1), "the families");
	conf_ready();
	conf_wait();
	for (i = 0; i < FAMILIES; i++)
		conf_reap_ok(fam[i]);
	conf_pass();
}
