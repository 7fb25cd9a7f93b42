// kind: memory
// state: generated code in anonymous memory, executed by a thread while the checkpoint is taken
// users: root nobody
// mutate: part:pages vma_entry.prot=3
#include "memfile.h"

static volatile uint64_t state[2];	/* counter, stop */

/* Counts up until told to stop; returns what it counted. */
#if defined(__x86_64__)
static const unsigned char code[] = {
	0x31, 0xc0,			/* xor %eax,%eax */
	0x48, 0xff, 0xc0,		/* inc %rax */
	0x48, 0x89, 0x07,		/* mov %rax,(%rdi) */
	0x48, 0x83, 0x7f, 0x08, 0x00,	/* cmpq $0,8(%rdi) */
	0x74, 0xf3,			/* je -13 */
	0xc3,				/* ret */
};
#elif defined(__aarch64__)
static const uint32_t code[] = {
	0xd2800001,	/* mov x1, #0 */
	0x91000421,	/* add x1, x1, #1 */
	0xf9000001,	/* str x1, [x0] */
	0xf9400402,	/* ldr x2, [x0, #8] */
	0xb4ffffa2,	/* cbz x2, -12 */
	0xaa0103e0,	/* mov x0, x1 */
	0xd65f03c0,	/* ret */
};
#endif

static void *run(void *at)
{
	return (void *)((uint64_t(*)(volatile uint64_t *))at)(state);
}

int main(int argc, char **argv)
{
	pthread_t t;
	uint64_t seen;
	void *r;
	char *p;

	conf_init(argc, argv);
	p = SYS(mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	memcpy(p + 2 * PAGE + 48, code, sizeof(code));
	__builtin___clear_cache(p + 2 * PAGE, p + 3 * PAGE);
	PT(pthread_create(&t, NULL, run, p + 2 * PAGE + 48));
	UNTIL(state[0] > 1000, "the generated code to run");
	conf_ready();
	conf_wait();
	seen = state[0];
	UNTIL(state[0] > seen, "the generated code to go on");
	state[1] = 1;
	PT(pthread_join(t, &r));
	CHECK((uint64_t)r >= seen && (uint64_t)r == state[0], "the code counted to %lu, its register was %lu", state[0], (uint64_t)r);
	mf_touch(p, true);
	CHECK(mf_last.sig == 0, "the code's memory cannot be written any more");
	conf_pass();
}
