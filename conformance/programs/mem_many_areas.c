// kind: memory
// state: 5000 areas that differ in their protection, each with content
// users: root nobody
// mutate: part:pages vma_entry.prot=3
#include "memfile.h"

#define N 5000
static struct mf_map was, now;

int main(int argc, char **argv)
{
	static const int prot[] = { PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE, PROT_READ | PROT_EXEC };
	uint64_t *p;
	size_t words;

	conf_init(argc, argv);
	p = (uint64_t *)mf_anon(N * PAGE);
	words = PAGE / 8;
	for (int i = 0; i < N; i++)
		p[i * words + i % words] = i + 1;
	for (int i = 0; i < N; i++)
		SYS(mprotect(p + i * words, PAGE, prot[i % 4]));
	mf_map_read(&was);
	mf_map_read(&now);	/* the pages of the buffer are there */
	CHECK(was.lines > N, "set-up: %zu areas", was.lines);
	conf_ready();
	conf_wait();
	mf_map_read(&now);
	mf_map_same(&now, &was);
	OK(mprotect(p, N * PAGE, PROT_READ));
	for (int i = 0; i < N; i++)
		SAME(p[i * words + i % words], i + 1);
	conf_pass();
}
