// kind: registers
// state: a thread that runs 32-bit code
// users: root nobody
// refused: 32-bit
#include "conformance.h"

/*
 * One page below 4 GiB holds 32-bit code that spins, and a little 64-bit code
 * that comes back from it with the stack pointer it finds in the page.
 */
static unsigned char *low;
#define FLAG 0x800  /* set by the 32-bit code */
#define END 0x804   /* ends its loop */
#define STACK 0x808 /* our stack pointer */
#define FAR 0x810   /* where to: offset and selector */

void enter32(void *far, void *stack_slot);
asm(".text\n.type enter32,@function\n"
    "enter32:\n"
    "	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
    "	mov %rsp,(%rsi)\n"
    "	ljmpl *(%rdi)\n"
    ".globl back64\nback64:\n"
    "	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n"
    "	ret\n"
    ".size enter32,.-enter32\n");
extern char back64[];

static unsigned char *put32(unsigned char *p, uint32_t v)
{
	memcpy(p, &v, 4);
	return p + 4;
}

static void *run(void *arg)
{
	uint32_t base = (uintptr_t)low, at64;
	unsigned char *p = low, *fix;

	*p++ = 0xb8; p = put32(p, 0x2b);                                               /* mov $0x2b,%eax */
	*p++ = 0x8e; *p++ = 0xd8;                                                      /* mov %eax,%ds */
	*p++ = 0xc7; *p++ = 0x05; p = put32(p, base + FLAG); p = put32(p, 1);          /* movl $1,FLAG */
	*p++ = 0x83; *p++ = 0x3d; p = put32(p, base + END); *p++ = 0;                  /* 1: cmpl $0,END */
	*p++ = 0x74; *p++ = 0xf7;                                                      /* je 1b */
	*p++ = 0xea; fix = p; p += 4; *p++ = 0x33; *p++ = 0;                           /* ljmp $0x33,at64 */
	at64 = base + (p - low);
	put32(fix, at64);
	*p++ = 0x48; *p++ = 0x8b; *p++ = 0x24; *p++ = 0x25; p = put32(p, base + STACK); /* mov STACK,%rsp */
	*p++ = 0x48; *p++ = 0xb8;                                                      /* movabs $back64,%rax */
	memcpy(p, &(char *){ back64 }, 8);
	p += 8;
	*p++ = 0xff; *p++ = 0xe0; /* jmp *%rax */
	put32(low + FAR, base);
	low[FAR + 4] = 0x23;
	low[FAR + 5] = 0;
	enter32(low + FAR, low + STACK);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;

	conf_init(argc, argv);
	low = SYS(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(*(volatile int *)(low + FLAG), "the 32-bit code");
	conf_ready();
	conf_wait();
	*(volatile int *)(low + END) = 1;
	PT(pthread_join(t, NULL));
	conf_pass();
}
