// kind: registers
// state: the 32 AVX-512 registers and eight mask registers of two spinning threads, different in each
// users: root nobody
// mutate: user_x86_xsave_entry.opmask_reg|fermata.thread_extra.xstate[1088:1152] user_x86_xsave_entry.zmm_upper|fermata.thread_extra.xstate[1152:1664] user_x86_xsave_entry.hi16_zmm|fermata.thread_extra.xstate[1664:2688]
// cflags: -mavx512f -mavx512bw -mno-vzeroupper
#include "conformance.h"

/* Each thread has its own block: 32 zmm and 8 k registers, in and out. */
struct block {
	unsigned char in[32 * 64], out[32 * 64];
	uint64_t kin[8], kout[8];
	volatile int spinning;
};
static struct block blocks[2] __attribute__((aligned(64)));
volatile int spin_end;

void spin(struct block *b);
#define L(n) "	vmovdqu64 64*" #n "(%rdi),%zmm" #n "\n"
#define S(n) "	vmovdqu64 %zmm" #n ",2048+64*" #n "(%rdi)\n"
#define LK(n) "	kmovq 4096+8*" #n "(%rdi),%k" #n "\n"
#define SK(n) "	kmovq %k" #n ",4096+64+8*" #n "(%rdi)\n"
#define ALL(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) \
	X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
#define ALLK(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
asm(".text\n.type spin,@function\n"
    "spin:\n"
    ALL(L) ALLK(LK)
    "	movl $1,4096+128(%rdi)\n"
    "1:	cmpl $0,spin_end(%rip)\n	je 1b\n"
    ALL(S) ALLK(SK)
    "	vzeroupper\n	ret\n"
    ".size spin,.-spin\n");

static void *run(void *arg)
{
	spin(arg);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[2];
	int i, j;

	conf_init(argc, argv);
	if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw"))
		conf_skip("this processor has no AVX-512");
	_Static_assert(offsetof(struct block, spinning) == 4096 + 128, "layout");
	for (j = 0; j < 2; j++) {
		for (i = 0; i < 2048; i++)
			blocks[j].in[i] = i * 3 + i / 256 + j * 101 + 1;
		for (i = 0; i < 8; i++)
			blocks[j].kin[i] = 0x0123456789abcdefULL * (i + 1) + j;
		PT(pthread_create(&t[j], NULL, run, &blocks[j]));
		UNTIL(blocks[j].spinning, "the thread");
	}
	conf_ready();
	conf_wait();
	spin_end = 1;
	for (j = 0; j < 2; j++) {
		PT(pthread_join(t[j], NULL));
		for (i = 0; i < 2048; i++)
			CHECK(blocks[j].in[i] == blocks[j].out[i], "thread %d: zmm%d byte %d is %#x, was %#x", j, i / 64, i % 64,
			      blocks[j].out[i], blocks[j].in[i]);
		for (i = 0; i < 8; i++)
			CHECK(blocks[j].kin[i] == blocks[j].kout[i], "thread %d: k%d is %#lx, was %#lx", j, i, blocks[j].kout[i],
			      blocks[j].kin[i]);
	}
	conf_pass();
}
