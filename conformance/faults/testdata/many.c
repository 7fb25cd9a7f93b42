// A tree of processes with threads, many of which are entered and left at once.
// Each thread holds what no stop may change: callee-saved registers, a vector
// register and the red zone over a spin, sleeps and reads that must not fail, its
// mask and alternate stack. What each has done and what was wrong is counted in the
// file that argv[1] names: rounds that all have done, errors, the last one's line;
// from 64 on a counter for each thread.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PROCESSES = 40, ALL = PROCESSES + PROCESSES / 4, THREADS = 3 };
static volatile uint64_t *page;

#define WRONG(cond)                                                                     \
	do {                                                                            \
		if (cond) {                                                             \
			__atomic_add_fetch(&page[1], 1, __ATOMIC_SEQ_CST);              \
			fprintf(stderr, "%d: line %d: %s, errno %d\n", getpid(), __LINE__, #cond, errno); \
		}                                                                       \
	} while (0)

// hold spins with values of x's in registers and in the red zone: 0 when all were kept.
uint64_t hold(uint64_t x, long turns);
__asm__(".globl hold\nhold:\n"
	"push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
	"mov %rdi,%rbx\n lea 1(%rdi),%rbp\n lea 2(%rdi),%r12\n lea 3(%rdi),%r13\n lea 4(%rdi),%r14\n lea 5(%rdi),%r15\n"
	"lea 6(%rdi),%rax\n lea 7(%rdi),%rdx\n lea 8(%rdi),%r8\n lea 9(%rdi),%r9\n lea 10(%rdi),%r10\n lea 11(%rdi),%r11\n"
	"mov %rdi,-8(%rsp)\n mov %rdi,-64(%rsp)\n mov %rdi,-128(%rsp)\n movq %rdi,%xmm7\n movq %rdi,%xmm15\n"
	"stc\n1: dec %rsi\n jnz 1b\n"
	"setnc %cl\n movzbl %cl,%ecx\n"
	"xor %rdi,%rbx\n or %rbx,%rcx\n"
	".macro KEPT reg n\n lea \\n(%rdi),%rsi\n xor %rsi,\\reg\n or \\reg,%rcx\n .endm\n"
	"KEPT %rbp 1\n KEPT %r12 2\n KEPT %r13 3\n KEPT %r14 4\n KEPT %r15 5\n KEPT %rax 6\n KEPT %rdx 7\n"
	"KEPT %r8 8\n KEPT %r9 9\n KEPT %r10 10\n KEPT %r11 11\n"
	".macro STAYED at\n mov \\at,%rsi\n xor %rdi,%rsi\n or %rsi,%rcx\n .endm\n"
	"STAYED -8(%rsp)\n STAYED -64(%rsp)\n STAYED -128(%rsp)\n"
	"movq %xmm7,%rsi\n xor %rdi,%rsi\n or %rsi,%rcx\n movq %xmm15,%rsi\n xor %rdi,%rsi\n or %rsi,%rcx\n"
	"mov %rcx,%rax\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"

	// The same over a nanosleep, which must not fail.
	".globl hold_asleep\nhold_asleep:\n"
	"push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
	"mov %rdi,%rbx\n lea 1(%rdi),%rbp\n lea 2(%rdi),%r12\n lea 3(%rdi),%r13\n lea 4(%rdi),%r14\n lea 5(%rdi),%r15\n"
	"lea 7(%rdi),%rdx\n lea 8(%rdi),%r8\n lea 9(%rdi),%r9\n lea 10(%rdi),%r10\n"
	"mov %rdi,-8(%rsp)\n mov %rdi,-64(%rsp)\n mov %rdi,-128(%rsp)\n movq %rdi,%xmm7\n movq %rdi,%xmm15\n"
	"mov %rsi,%rdi\n xor %esi,%esi\n mov $35,%eax\n syscall\n"
	"mov %rax,%rcx\n mov -8(%rsp),%rdi\n"
	"xor %rdi,%rbx\n or %rbx,%rcx\n"
	"KEPT %rbp 1\n KEPT %r12 2\n KEPT %r13 3\n KEPT %r14 4\n KEPT %r15 5\n KEPT %rdx 7\n"
	"KEPT %r8 8\n KEPT %r9 9\n KEPT %r10 10\n STAYED -64(%rsp)\n STAYED -128(%rsp)\n"
	"movq %xmm7,%rsi\n xor %rdi,%rsi\n or %rsi,%rcx\n movq %xmm15,%rsi\n xor %rdi,%rsi\n or %rsi,%rcx\n"
	"mov %rcx,%rax\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");
uint64_t hold_asleep(uint64_t x, const struct timespec *t);

static void *work(void *arg)
{
	int me = (int)(intptr_t)arg, p[2];
	stack_t alt = { .ss_sp = malloc(32768), .ss_size = 32768 }, st;
	sigset_t mask, now;
	char b;

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGRTMIN + 3 + me % 20);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (pipe(p) || sigaltstack(&alt, NULL))
		abort();
	for (uint64_t x = me * 0x9e3779b97f4a7c15;; x = x * 6364136223846793005ULL + 1) {
		WRONG(hold(x, me % 6 ? 20000 : 300000));
		switch (me % 3) { // most of them wait, each in its own way
		case 0: {
			struct timespec t = { 0, 10000000 };
			WRONG(hold_asleep(x, &t));
			break;
		}
		case 1: {
			struct pollfd f = { p[0], POLLIN, 0 };
			WRONG(poll(&f, 1, 10) != 0);
			break;
		}
		default:
			WRONG(write(p[1], "x", 1) != 1 || read(p[0], &b, 1) != 1 || b != 'x');
			usleep(10000);
		}
		WRONG(pthread_sigmask(SIG_SETMASK, NULL, &now) || memcmp(&now, &mask, 8));
		WRONG(sigaltstack(NULL, &st) || st.ss_sp != alt.ss_sp || st.ss_size != alt.ss_size || st.ss_flags);
		page[64 + me]++;
	}
	return NULL;
}

static void process(int nr)
{
	pthread_t t;

	for (int i = 1; i < THREADS; i++)
		if (pthread_create(&t, NULL, work, (void *)(intptr_t)(nr * THREADS + i)))
			abort();
	work((void *)(intptr_t)(nr * THREADS));
}

int main(int argc, char **argv)
{
	int fd = open(argv[1], O_RDWR);
	int parent = getpid();

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (page == MAP_FAILED)
		return 1;
	for (int nr = 0; nr < PROCESSES; nr++) {
		// Every fourth one has a child.
		pid_t pid = fork();
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		if (nr % 4 == 3) {
			int self = getpid();
			if (!fork()) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				if (getppid() != self)
					_exit(1);
				process(PROCESSES + nr / 4);
			}
		}
		process(nr);
	}
	for (uint64_t last = 0;; usleep(2000)) {
		uint64_t least = UINT64_MAX;

		for (int i = 0; i < ALL * THREADS; i++)
			if (least > page[64 + i])
				least = page[64 + i];
		if (least > last)
			page[0] = last = least;
		WRONG(waitpid(-1, NULL, WNOHANG) != 0);
	}
}
