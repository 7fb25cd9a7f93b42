// kind: registers
// state: x87 stack and control word, MXCSR and the sixteen SSE registers of a spinning thread
// users: root nobody
// mutate: user_x86_fpregs_entry.xmm_space|fermata.thread_extra.xstate[160:416] user_x86_fpregs_entry.st_space|fermata.thread_extra.xstate[32:160] user_x86_fpregs_entry.mxcsr=0x1f80|fermata.thread_extra.xstate[24:28] user_x86_fpregs_entry.cwd=0x37f|fermata.thread_extra.xstate[0:2]
#include "conformance.h"

volatile int spin_end, spinning;
unsigned char in[256], out[256] __attribute__((aligned(64)));
unsigned short fcw_in = 0x0c7f, fcw_out;	/* double extended, round to zero */
unsigned fp_mxcsr_in = 0x1f80 | 0x6000 | 0x8040, fp_mxcsr_out; /* round to zero, FTZ, DAZ */
long double st_in[3] = { 1.0L / 3, -2.0L / 7, 1e4000L }, st_out[3];

void spin(void);
#define L(n) "	movdqu in+16*" #n "(%rip),%xmm" #n "\n"
#define S(n) "	movdqu %xmm" #n ",out+16*" #n "(%rip)\n"
asm(".text\n.type spin,@function\n"
    "spin:\n"
    "	fninit\n	fldcw fcw_in(%rip)\n	ldmxcsr fp_mxcsr_in(%rip)\n"
    "	fldt st_in(%rip)\n	fldt st_in+16(%rip)\n	fldt st_in+32(%rip)\n"
    L(0) L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15)
    "	movl $1,spinning(%rip)\n"
    "1:	cmpl $0,spin_end(%rip)\n	je 1b\n"
    S(0) S(1) S(2) S(3) S(4) S(5) S(6) S(7) S(8) S(9) S(10) S(11) S(12) S(13) S(14) S(15)
    "	fstpt st_out+32(%rip)\n	fstpt st_out+16(%rip)\n	fstpt st_out(%rip)\n"
    "	stmxcsr fp_mxcsr_out(%rip)\n	fnstcw fcw_out(%rip)\n"
    "	ret\n"
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
	for (i = 0; i < 256; i++)
		in[i] = i * 7 + 1;
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(spinning, "the thread");
	conf_ready();
	conf_wait();
	spin_end = 1;
	PT(pthread_join(t, NULL));
	for (i = 0; i < 256; i++)
		CHECK(in[i] == out[i], "xmm%d byte %d is %#x, was %#x", i / 16, i % 16, out[i], in[i]);
	for (i = 0; i < 3; i++)
		CHECK(!memcmp(&st_in[i], &st_out[i], 10), "st value %d is %Lg, was %Lg", i, st_out[i], st_in[i]);
	SAME(fcw_out, fcw_in);
	SAME(fp_mxcsr_out, fp_mxcsr_in);
	conf_pass();
}
