// kind: threads
// state: a thread inside a restartable sequence goes to its abort address, and later sequences abort too
// users: root nobody
// mutate: rseq_entry
// nocriu: left: it leaves the thread in the sequence, with nobody to end it
#include "conformance.h"
#include <sys/rseq.h>

/*
 * The sequence is an endless loop: only the kernel gets the thread out of it,
 * by sending it to the abort address when it is preempted or restored. Two
 * threads on one processor make sure that there are preemptions.
 */
static volatile long aborts[2];
static volatile int end;

static void loop_until_aborted(struct rseq *r)
{
	asm volatile goto(
		".pushsection __rseq_cs,\"aw\"\n"
		".balign 32\n"
		"3:	.long 0, 0\n"
		"	.quad 1f, 2f - 1f, 4f\n"
		".popsection\n"
		"	leaq 3b(%%rip),%%rax\n"
		"	movq %%rax,8(%0)\n"
		"1:	jmp 1b\n"
		"2:\n"
		".pushsection __rseq_failure,\"ax\"\n"
		"	.byte 0x0f,0xb9,0x3d\n"
		"	.long 0x53053053\n"
		"4:	jmp %l[aborted]\n"
		".popsection\n"
		: : "r"(r) : "rax", "memory", "cc" : aborted);
aborted:
	return;
}

static void *run(void *arg)
{
	struct rseq *r = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	long i = (long)arg;

	while (!end) {
		loop_until_aborted(r);
		aborts[i]++;
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[2];
	pthread_attr_t attr;
	cpu_set_t set;
	long i, before[2];

	conf_init(argc, argv);
	if (__rseq_size == 0)
		conf_skip("the C library has not registered rseq");
	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	PT(pthread_attr_init(&attr));
	PT(pthread_attr_setaffinity_np(&attr, sizeof(set), &set));
	for (i = 0; i < 2; i++)
		PT(pthread_create(&t[i], &attr, run, (void *)i));
	UNTIL(aborts[0] > 2 && aborts[1] > 2, "the first aborts");
	conf_ready();
	conf_wait();
	for (i = 0; i < 2; i++)
		before[i] = aborts[i];
	UNTIL(aborts[0] > before[0] + 2 && aborts[1] > before[1] + 2, "aborts after the checkpoint");
	end = 1;
	for (i = 0; i < 2; i++)
		PT(pthread_join(t[i], NULL));
	conf_pass();
}
