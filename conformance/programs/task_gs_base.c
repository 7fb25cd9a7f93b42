// kind: registers
// state: GS base of two threads, and an FS base that isn't the C library's
// users: root nobody
// mutate: user_x86_regs_entry.gs_base user_x86_regs_entry.fs_base
#include "conformance.h"
#include <asm/prctl.h>

static uint64_t area[2][8], other_fs[8];
static int ready_count;
volatile int fs_end, fs_spinning;
uint64_t fs_seen;

/*
 * Swaps FS for the address in rdi, spins until fs_end, reads fs:16, puts the
 * old FS (rsi) back.
 */
void fs_spin(void *fs, unsigned long old);
asm(".text\n.type fs_spin,@function\n"
    "fs_spin:\n"
    "	push %rsi\n	mov %rdi,%rsi\n	mov $0x1002,%edi\n	mov $158,%eax\n	syscall\n" /* ARCH_SET_FS */
    "	movl $1,fs_spinning(%rip)\n"
    "1:	cmpl $0,fs_end(%rip)\n	je 1b\n"
    "	mov %fs:16,%rax\n	mov %rax,fs_seen(%rip)\n"
    "	pop %rsi\n	mov $0x1002,%edi\n	mov $158,%eax\n	syscall\n"
    "	ret\n"
    ".size fs_spin,.-fs_spin\n");

static void *gs_thread(void *arg)
{
	long i = (long)arg;
	uint64_t v;
	unsigned long base;

	SYS(syscall(SYS_arch_prctl, ARCH_SET_GS, area[i]));
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	asm volatile("mov %%gs:24,%0" : "=r"(v));
	SAME(v, 0x5500 + i);
	OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
	SAME(base, (long)area[i]);
	return NULL;
}

static void *fs_thread(void *arg)
{
	unsigned long old;

	SYS(syscall(SYS_arch_prctl, ARCH_GET_FS, &old));
	fs_spin(other_fs, old);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t[3];
	long i;

	conf_init(argc, argv);
	other_fs[2] = 0x7700;
	for (i = 0; i < 2; i++) {
		area[i][3] = 0x5500 + i;
		PT(pthread_create(&t[i], NULL, gs_thread, (void *)i));
	}
	PT(pthread_create(&t[2], NULL, fs_thread, NULL));
	UNTIL(ready_count == 2 && fs_spinning, "the threads");
	conf_ready();
	conf_wait();
	fs_end = 1;
	for (i = 0; i < 3; i++)
		PT(pthread_join(t[i], NULL));
	SAME(fs_seen, 0x7700);
	conf_pass();
}
