// kind: registers
// state: the upper halves of the AVX registers of a spinning thread
// users: root nobody
// mutate: user_x86_xsave_entry.ymmh_space|fermata.thread_extra.xstate[576:832]
#include "conformance.h"

volatile int spin_end, spinning;
unsigned char in[512], out[512] __attribute__((aligned(64)));

void spin(void);
#define L(n) "	vmovdqu in+32*" #n "(%rip),%ymm" #n "\n"
#define S(n) "	vmovdqu %ymm" #n ",out+32*" #n "(%rip)\n"
asm(".text\n.type spin,@function\n"
    "spin:\n"
    L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15)
    "	movl $1,spinning(%rip)\n"
    "1:	cmpl $0,spin_end(%rip)\n	je 1b\n"
    S(0) S(1) S(2) S(3) S(4) S(5) S(6) S(7) S(8) S(9) S(10) S(11) S(12) S(13) S(14) S(15)
    "	vzeroupper\n	ret\n"
    ".size spin,.-spin\n");

static void *run(void *arg)
{
	spin();
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;
	int i;

	conf_init(argc, argv);
	if (!__builtin_cpu_supports("avx"))
		conf_skip("this processor has no AVX");
	for (i = 0; i < 512; i++)
		in[i] = i * 5 + i / 256 + 1;
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(spinning, "the thread");
	conf_ready();
	conf_wait();
	spin_end = 1;
	PT(pthread_join(t, NULL));
	for (i = 0; i < 512; i++)
		CHECK(in[i] == out[i], "ymm%d byte %d is %#x, was %#x", i / 32, i % 32, out[i], in[i]);
	conf_pass();
}
