// kind: registers
// state: general registers and flags of a thread that spins, and of one that sits in a system call
// users: root nobody
// mutate: user_x86_regs_entry.r8 user_x86_regs_entry.r12 user_x86_regs_entry.r15 user_x86_regs_entry.flags=0x202
// short: yes
#include "conformance.h"

/*
 * Both functions load each register with its own value, wait, and store what
 * is there. Nothing is on the stack and no C code runs in between.
 */
volatile int spin_end, spinning;
uint64_t spun[16], slept[16];
int sleep_fd;
char sleep_byte;

void spin(void);
void sleep_in_read(void);

#define LOAD(reg, n) "	movabs $0x1122334455660000+0x" n ",%" reg "\n"

/* Flags: AC and DF have no meaning for the loop and stay as they are set. */
asm(".text\n.type spin,@function\n"
    "spin:\n"
    "	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
    "	pushfq\n	orq $0x40400,(%rsp)\n	popfq\n"
    LOAD("rax", "01") LOAD("rbx", "02") LOAD("rcx", "03") LOAD("rdx", "04") LOAD("rsi", "05") LOAD("rdi", "06") LOAD("rbp", "07")
    LOAD("r8", "08") LOAD("r9", "09") LOAD("r10", "0a") LOAD("r11", "0b") LOAD("r12", "0c") LOAD("r13", "0d") LOAD("r14", "0e") LOAD("r15", "0f")
    "	movl $1,spinning(%rip)\n"
    "1:	cmpl $0,spin_end(%rip)\n"
    "	je 1b\n"
    "	mov %rax,spun+8(%rip)\n	mov %rbx,spun+16(%rip)\n	mov %rcx,spun+24(%rip)\n	mov %rdx,spun+32(%rip)\n"
    "	mov %rsi,spun+40(%rip)\n	mov %rdi,spun+48(%rip)\n	mov %rbp,spun+56(%rip)\n	mov %r8,spun+64(%rip)\n"
    "	mov %r9,spun+72(%rip)\n	mov %r10,spun+80(%rip)\n	mov %r11,spun+88(%rip)\n	mov %r12,spun+96(%rip)\n"
    "	mov %r13,spun+104(%rip)\n	mov %r14,spun+112(%rip)\n	mov %r15,spun+120(%rip)\n"
    "	pushfq\n	pop %rax\n	mov %rax,spun(%rip)\n"
    "	pushfq\n	andq $~0x40400,(%rsp)\n	popfq\n"
    "	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
    "	ret\n"
    ".size spin,.-spin\n");

/* read(sleep_fd, &sleep_byte, 1): the kernel keeps all but rax, rcx and r11. */
asm(".text\n.type sleep_in_read,@function\n"
    "sleep_in_read:\n"
    "	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
    LOAD("rbx", "02") LOAD("rbp", "07")
    LOAD("r8", "08") LOAD("r9", "09") LOAD("r10", "0a") LOAD("r12", "0c") LOAD("r13", "0d") LOAD("r14", "0e") LOAD("r15", "0f")
    "	movslq sleep_fd(%rip),%rdi\n	lea sleep_byte(%rip),%rsi\n	mov $1,%edx\n	xor %eax,%eax\n"
    "	syscall\n"
    "	mov %rax,slept+8(%rip)\n	mov %rbx,slept+16(%rip)\n	mov %rdx,slept+32(%rip)\n"
    "	mov %rsi,slept+40(%rip)\n	mov %rdi,slept+48(%rip)\n	mov %rbp,slept+56(%rip)\n	mov %r8,slept+64(%rip)\n"
    "	mov %r9,slept+72(%rip)\n	mov %r10,slept+80(%rip)\n	mov %r12,slept+96(%rip)\n"
    "	mov %r13,slept+104(%rip)\n	mov %r14,slept+112(%rip)\n	mov %r15,slept+120(%rip)\n"
    "	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
    "	ret\n"
    ".size sleep_in_read,.-sleep_in_read\n");

static void *run_spin(void *arg)
{
	spin();
	return NULL;
}

static volatile pid_t sleeper;

static void *run_sleep(void *arg)
{
	sleeper = syscall(SYS_gettid);
	sleep_in_read();
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t a, b;
	int p[2], i;

	conf_init(argc, argv);
	SYS(pipe(p));
	sleep_fd = p[0];
	PT(pthread_create(&a, NULL, run_spin, NULL));
	PT(pthread_create(&b, NULL, run_sleep, NULL));
	UNTIL(spinning && sleeper && conf_in_syscall(sleeper, SYS_read), "the threads");
	conf_ready();
	conf_wait();
	OK(write(p[1], "x", 1));
	spin_end = 1;
	PT(pthread_join(a, NULL));
	PT(pthread_join(b, NULL));
	for (i = 1; i < 16; i++)
		CHECK(spun[i] == 0x1122334455660000 + i, "spinning: register %d is %#lx", i, spun[i]);
	CHECK((spun[0] & 0x40400) == 0x40400, "spinning: flags are %#lx", spun[0]);
	for (i = 2; i < 16; i++) {
		if (i == 2 || i >= 7)
			CHECK(i == 11 || slept[i] == 0x1122334455660000 + i, "in read: register %d is %#lx", i, slept[i]);
	}
	SAME(slept[1], 1);
	SAME(slept[4], 1);
	SAME(slept[5], (long)&sleep_byte);
	SAME(slept[6], sleep_fd);
	SAME(sleep_byte, 'x');
	conf_pass();
}
