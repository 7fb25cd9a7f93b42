// kind: memory
// state: protection keys: keys allocated, areas under them, the thread's rights register
// users: root nobody
// mutate: fermata.vma_extra.pkey
#include "memfile.h"

static char *area_of_key[4];

static int key_of(const void *p)
{
	struct mf_lines l;
	char line[1024];
	uint64_t s, e;
	int key = -1;
	bool in = false;

	mf_lines_open(&l, "/proc/self/smaps");
	while (mf_line(&l, line, sizeof(line))) {
		if (sscanf(line, "%lx-%lx ", &s, &e) == 2)
			in = (uintptr_t)p >= s && (uintptr_t)p < e;
		else if (in)
			sscanf(line, "ProtectionKey: %d", &key);
	}
	close(l.fd);
	return key;
}

int main(int argc, char **argv)
{
	int key[4], next;

	conf_init(argc, argv);
	for (int i = 0; i < 4; i++) {
		key[i] = pkey_alloc(0, i & (PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE));
		if (key[i] < 0)
			conf_skip("this processor has no protection keys");
		area_of_key[i] = mf_anon(PAGE);
		mf_fill(area_of_key[i], PAGE, i);
		SYS(pkey_mprotect(area_of_key[i], PAGE, PROT_READ | PROT_WRITE, key[i]));
	}
	SYS(pkey_free(key[0]));	/* freed while in use: the area keeps it */
	conf_ready();
	conf_wait();
	for (int i = 0; i < 4; i++) {
		SAME(key_of(area_of_key[i]), key[i]);
		if (i)
			SAME(pkey_get(key[i]), i & 3);
	}
	mf_faults(area_of_key[1], false, SIGSEGV, SEGV_PKUERR, "access disabled");
	mf_faults(area_of_key[2], true, SIGSEGV, SEGV_PKUERR, "write disabled");
	mf_check(area_of_key[2], PAGE, 2, "page that cannot be written");
	OK(pkey_set(key[1], 0));
	mf_check(area_of_key[1], PAGE, 1, "page that could not be read");
	next = OK(pkey_alloc(0, 0));
	SAME(next, key[0]);	/* the only free one below the rest */
	next = OK(pkey_alloc(0, 0));
	CHECK(next != key[1] && next != key[2] && next != key[3], "key %d is given out twice", next);
	conf_pass();
}
