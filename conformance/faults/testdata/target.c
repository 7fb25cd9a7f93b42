// A program that notices whatever is done to it: registers, extended state,
// red zone, masks, timers, queued signals, sleeping calls and how long they
// took. It counts in a shared page that the test reads.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// The shared page: progress of each thread, errors, and EINTR by system call.
struct page {
	volatile uint64_t progress[32];
	volatile uint64_t error[64];
	volatile uint64_t eintr[32];
	volatile uint64_t deaf[32]; // EINTR of calls that any stop breaks off
	volatile uint64_t tid[32];  // who makes progress[i]
	volatile uint64_t slack_ms; // how much too long a sleep may be
	volatile uint64_t over[4];  // the longest excess seen, ms
	volatile uint64_t ran[2];   // for how long this process could run, ns
	volatile uint64_t mask[32]; // the mask of who makes progress[i]
	volatile uint64_t waited[4]; // for a processor, ns: as known to the test
};
static struct page *P;

enum { MAIN, HOLD1, HOLD2, SLEEP, PIPE, FUTEX, QUEUE, LONG, EPOLL, PPOLL, CHILD, ALARM, POLLT, THREADS };

// hold(in, out, n): every register holds a value of its own for n turns.
struct regs {
	uint64_t g[14];       // rax rbx rdx rbp rsi rdi r8..r15
	uint64_t red[16];     // the red zone
	uint32_t mxcsr, carry;
	uint64_t k[7];
	uint8_t z[32][64] __attribute__((aligned(64)));
};
extern void hold_gpr(struct regs *in, struct regs *out, long n);
extern void hold_zmm(struct regs *in, struct regs *out, long n);
extern void hold_ymm(struct regs *in, struct regs *out, long n);

#define RED 112
#define MX 240
#define CARRY 244
#define KS 248
#define ZS 320
#define S_(x) #x
#define S(x) S_(x)
_Static_assert(__builtin_offsetof(struct regs, red) == RED, "red");
_Static_assert(__builtin_offsetof(struct regs, mxcsr) == MX, "mxcsr");
_Static_assert(__builtin_offsetof(struct regs, k) == KS, "k");
_Static_assert(__builtin_offsetof(struct regs, z) == ZS, "z");

#define N16(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
#define N32(f) N16(f) f(16) f(17) f(18) f(19) f(20) f(21) f(22) f(23) f(24) f(25) f(26) f(27) f(28) f(29) f(30) f(31)
#define INY(n) "vmovdqu " S(ZS) "+64*" #n "(%rdi),%ymm" #n "\n"
#define OUTY(n) "vmovdqu %ymm" #n "," S(ZS) "+64*" #n "(%rcx)\n"
#define INZ(n) "vmovdqu64 " S(ZS) "+64*" #n "(%rdi),%zmm" #n "\n"
#define OUTZ(n) "vmovdqu64 %zmm" #n "," S(ZS) "+64*" #n "(%rcx)\n"

__asm__(
	".macro ENTER\n"
	"push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n push %rsi\n"
	"mov %rdx,%rcx\n ldmxcsr " S(MX) "(%rdi)\n"
	".set i,0\n .rept 16\n mov " S(RED) "+8*i(%rdi),%rax\n mov %rax,-128+8*i(%rsp)\n .set i,i+1\n .endr\n"
	".endm\n"
	".macro TURN\n"
	"mov 0(%rdi),%rax\n mov 8(%rdi),%rbx\n mov 16(%rdi),%rdx\n mov 24(%rdi),%rbp\n mov 32(%rdi),%rsi\n"
	"mov 48(%rdi),%r8\n mov 56(%rdi),%r9\n mov 64(%rdi),%r10\n mov 72(%rdi),%r11\n mov 80(%rdi),%r12\n"
	"mov 88(%rdi),%r13\n mov 96(%rdi),%r14\n mov 104(%rdi),%r15\n mov 40(%rdi),%rdi\n"
	"stc\n 1: dec %rcx\n jnz 1b\n mov (%rsp),%rcx\n"
	"mov %rax,0(%rcx)\n setc %al\n movzbl %al,%eax\n mov %eax," S(CARRY) "(%rcx)\n"
	"mov %rbx,8(%rcx)\n mov %rdx,16(%rcx)\n mov %rbp,24(%rcx)\n mov %rsi,32(%rcx)\n mov %rdi,40(%rcx)\n"
	"mov %r8,48(%rcx)\n mov %r9,56(%rcx)\n mov %r10,64(%rcx)\n mov %r11,72(%rcx)\n mov %r12,80(%rcx)\n"
	"mov %r13,88(%rcx)\n mov %r14,96(%rcx)\n mov %r15,104(%rcx)\n stmxcsr " S(MX) "(%rcx)\n"
	".endm\n"
	".macro LEAVE_\n"
	".set i,0\n .rept 16\n mov -128+8*i(%rsp),%rax\n mov %rax," S(RED) "+8*i(%rcx)\n .set i,i+1\n .endr\n"
	"pop %rsi\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
	".endm\n"
	".globl hold_gpr\nhold_gpr:\n ENTER\n TURN\n LEAVE_\n"
	".globl hold_ymm\nhold_ymm:\n ENTER\n " N16(INY) "TURN\n" N16(OUTY) "LEAVE_\n"
	".globl hold_zmm\nhold_zmm:\n ENTER\n " N32(INZ)
	"kmovq " S(KS) "+0(%rdi),%k1\n kmovq " S(KS) "+8(%rdi),%k2\n kmovq " S(KS) "+16(%rdi),%k3\n kmovq " S(KS) "+24(%rdi),%k4\n"
	"kmovq " S(KS) "+32(%rdi),%k5\n kmovq " S(KS) "+40(%rdi),%k6\n kmovq " S(KS) "+48(%rdi),%k7\n"
	"TURN\n" N32(OUTZ)
	"kmovq %k1," S(KS) "+0(%rcx)\n kmovq %k2," S(KS) "+8(%rcx)\n kmovq %k3," S(KS) "+16(%rcx)\n kmovq %k4," S(KS) "+24(%rcx)\n"
	"kmovq %k5," S(KS) "+32(%rcx)\n kmovq %k6," S(KS) "+40(%rcx)\n kmovq %k7," S(KS) "+48(%rcx)\n"
	"LEAVE_\n");

static long tid(void) { return syscall(SYS_gettid); }

// born says who makes progress[me], and with what mask.
static void born(int me)
{
	uint64_t m = 0;
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &m, 8);
	P->mask[me] = m;
	P->tid[me] = tid();
}

static void block(int a, int b, int c)
{
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGALRM);
	sigaddset(&m, SIGUSR1);
	if (a) sigaddset(&m, a);
	if (b) sigaddset(&m, b);
	if (c) sigaddset(&m, c);
	pthread_sigmask(SIG_SETMASK, &m, 0);
}

static void altstack(void)
{
	stack_t s = { .ss_sp = malloc(65536), .ss_size = 65536 };
	sigaltstack(&s, 0);
}

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// An instant by two clocks: that of the machine, and one that stands while the
// process does, be it stopped or without a processor. The holders, which always
// have something to do, drive that.
struct instant { int64_t at; uint64_t ran[2]; };

static struct instant instant(void)
{
	return (struct instant){ now(), { P->ran[0], P->ran[1] } };
}

// waited gives for how many ns this thread has waited for a processor since the
// test looked (sched-stats.rst): on a busy machine that can be seconds.
static int64_t waited(int which)
{
	uint64_t before = P->waited[which], on, in = before;
	FILE *f = fopen("/proc/thread-self/schedstat", "re");
	if (f) {
		if (fscanf(f, "%lu %lu", &on, &in) != 2) in = before;
		fclose(f);
	}
	return in - before;
}

// slept checks how long a sleep took: never too short, and not begun anew.
static void slept(struct instant began, int64_t want, int which)
{
	if (now() - began.at < want) P->error[16 + which]++;
	int64_t d = INT64_MAX;
	for (int i = 0; i < 2; i++)
		if (d > (int64_t)(P->ran[i] - began.ran[i])) d = P->ran[i] - began.ran[i];
	int64_t over = (d - want) / 1000000;
	if (over > (int64_t)P->slack_ms) over -= waited(which) / 1000000;
	if (over > (int64_t)P->over[which]) P->over[which] = over;
	if (over > (int64_t)P->slack_ms) P->error[20 + which]++;
}

static void *holder(void *arg)
{
	int me = (int)(intptr_t)arg;
	block(SIGTERM, me == HOLD2 ? SIGUSR2 : 0, 0);
	altstack();
	born(me);
	static struct regs io[2][2];
	struct regs *in = &io[me - HOLD1][0], *out = &io[me - HOLD1][1];
	int zmm = __builtin_cpu_supports("avx512bw"), ymm = __builtin_cpu_supports("avx2");
	uint64_t x = me + 1;
	for (int64_t last = now();;) {
		int64_t t = now(), d = t - last;
		last = t;
		P->ran[me - HOLD1] += d < 10000000 ? d : 10000000;
		uint8_t *b = (uint8_t *)in;
		for (size_t i = 0; i + 8 <= sizeof *in; i += 8) {
			x = x * 6364136223846793005ULL + 1442695040888963407ULL;
			memcpy(b + i, &x, 8);
		}
		in->mxcsr = 0x1f80 | (in->mxcsr & 0xe040);
		memset(out, 0, sizeof *out);
		(zmm ? hold_zmm : ymm ? hold_ymm : hold_gpr)(in, out, 1000000);
		__builtin_ia32_ldmxcsr(0x1f80);
		if (memcmp(in->g, out->g, sizeof in->g)) P->error[0]++;
		if (memcmp(in->red, out->red, sizeof in->red)) P->error[1]++;
		if ((in->mxcsr ^ out->mxcsr) & 0xffc0) P->error[2]++;
		if (out->carry != 1) P->error[3]++;
		if (zmm && memcmp(in->k, out->k, sizeof in->k)) P->error[4]++;
		if (zmm && memcmp(in->z, out->z, sizeof in->z)) P->error[5]++;
		if (!zmm && ymm)
			for (int i = 0; i < 16; i++)
				if (memcmp(in->z[i], out->z[i], 32)) P->error[5]++;
		P->progress[me]++;
		usleep(300);
	}
}

static void *sleeper(void *arg)
{
	block(SIGTERM, 40, 0);
	born(SLEEP);
	for (;;) {
		struct timespec t = { 0, 3000000 }, left;
		struct instant began = instant();
		if (nanosleep(&t, &left)) {
			if (errno == EINTR) P->eintr[0]++; else P->error[6]++;
		} else slept(began, 3000000, 0);
		P->progress[SLEEP]++;
	}
}

static void *longsleeper(void *arg)
{
	block(SIGTERM, 41, 0);
	born(LONG);
	for (;;) {
		struct timespec t = { 1, 0 }, left;
		struct instant began = instant();
		if (nanosleep(&t, &left)) {
			if (errno == EINTR) P->eintr[0]++; else P->error[6]++;
		} else slept(began, 1000000000, 1);
		P->progress[LONG]++;
	}
}

static void *pollsleeper(void *arg)
{
	block(SIGTERM, 42, 0);
	born(POLLT);
	int p[2];
	if (pipe(p)) abort();
	for (;;) {
		struct pollfd f = { p[0], POLLIN, 0 };
		struct instant began = instant();
		int r = poll(&f, 1, 300);
		if (r < 0 && errno == EINTR) P->eintr[1]++;
		else if (r) P->error[7]++;
		else slept(began, 300000000, 2);
		P->progress[POLLT]++;
	}
}

static int pp[2], word;
static void *reader(void *arg)
{
	block(SIGHUP, 0, 0);
	born(PIPE);
	uint32_t want = 0, v;
	for (;;) {
		struct pollfd f = { pp[0], POLLIN, 0 };
		if (poll(&f, 1, 20) < 0) {
			if (errno == EINTR) P->eintr[1]++; else P->error[7]++;
		}
		int r = read(pp[0], &v, 4);
		if (r < 0) {
			if (errno == EINTR) P->eintr[2]++; else P->error[8]++;
			continue;
		}
		if (r != 4 || v != want) P->error[9]++;
		want = v + 1;
		long w = syscall(SYS_futex, &word, FUTEX_WAIT, word, NULL);
		if (w < 0 && errno == EINTR) P->eintr[3]++;
		else if (w < 0 && errno != EAGAIN) P->error[10]++;
		P->progress[PIPE]++;
	}
}

static void *futexer(void *arg)
{
	block(SIGTERM, SIGHUP, 0);
	born(FUTEX);
	static int never;
	for (;;) {
		struct timespec t = { 0, 5000000 };
		struct instant began = instant();
		long w = syscall(SYS_futex, &never, FUTEX_WAIT, 0, &t);
		if (w < 0 && errno == EINTR) P->eintr[3]++;
		else if (w == 0 || errno != ETIMEDOUT) P->error[10]++;
		else slept(began, 5000000, 3);
		P->progress[FUTEX]++;
	}
}

// queued takes signals that carry a number: none may get lost or come twice.
static void *queued(void *arg)
{
	block(SIGRTMIN + 1, 0, 0);
	born(QUEUE);
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGRTMIN + 1);
	int want = 0;
	for (;;) {
		siginfo_t si;
		struct timespec t = { 0, 50000000 };
		int s = sigtimedwait(&m, &si, &t);
		if (s < 0) {
			if (errno == EINTR) P->deaf[0]++; else if (errno != EAGAIN) P->error[11]++;
			continue;
		}
		if (si.si_value.sival_int != want) P->error[12]++;
		want = si.si_value.sival_int + 1;
		P->progress[QUEUE]++;
	}
}

static void *epoller(void *arg)
{
	block(SIGTERM, 43, 0);
	born(EPOLL);
	int e = epoll_create1(EPOLL_CLOEXEC);
	for (;;) {
		struct epoll_event ev;
		int r = epoll_wait(e, &ev, 1, 4);
		if (r < 0 && errno == EINTR) P->deaf[1]++;
		else if (r) P->error[13]++;
		P->progress[EPOLL]++;
	}
}

// A mask that holds only inside the call: the handler may run nowhere else.
static __thread volatile int inside;
static void onusr(int s)
{
	if (!inside) P->error[14]++;
	P->progress[PPOLL]++;
}
static void *ppoller(void *arg)
{
	block(SIGTERM, 44, 0);
	altstack();
	born(PPOLL);
	sigset_t open;
	pthread_sigmask(SIG_SETMASK, NULL, &open);
	sigdelset(&open, SIGUSR1);
	for (;;) {
		struct timespec t = { 1, 0 };
		inside = 1;
		ppoll(NULL, 0, &t, &open);
		inside = 0;
	}
}

static void onalrm(int s)
{
	char here;
	stack_t st;
	sigaltstack(NULL, &st);
	if (&here < (char *)st.ss_sp || &here >= (char *)st.ss_sp + st.ss_size) P->error[15]++;
	P->progress[ALARM]++;
}

static void child(int parent)
{
	close(0); close(1); close(2);
	block(SIGTERM, 45, 0);
	born(CHILD);
	for (uint64_t n = 0;; n++) {
		struct timespec t = { 0, 2000000 };
		if (nanosleep(&t, NULL) && errno == EINTR) P->eintr[0]++;
		if (getppid() != parent) _exit(1);
		P->progress[CHILD]++;
	}
}

int main(int argc, char **argv)
{
	int fd = open(argv[1], O_RDWR);
	P = mmap(0, sizeof *P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (P == MAP_FAILED || pipe(pp)) return 1;
	struct sigaction sa = { .sa_handler = onalrm, .sa_flags = SA_RESTART | SA_ONSTACK };
	sigaction(SIGALRM, &sa, 0);
	sa.sa_handler = onusr;
	sigaction(SIGUSR1, &sa, 0);
	int me = getpid(), pid = fork();
	if (pid == 0) child(me);
	block(SIGRTMIN + 1, 0, 0); // which is sent to a thread that may not have run yet
	void *(*f[])(void *) = { holder, holder, sleeper, reader, futexer, queued, longsleeper, epoller, ppoller, pollsleeper };
	pthread_t t[10];
	for (int i = 0; i < 10; i++)
		if (pthread_create(&t[i], 0, f[i], (void *)(intptr_t)(i + 1))) return 1;
	altstack();
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR1);
	sigaddset(&m, SIGUSR2);
	pthread_sigmask(SIG_SETMASK, &m, 0);
	struct itimerval it = { { 0, 5000 }, { 0, 5000 } };
	setitimer(ITIMER_REAL, &it, 0);
	born(MAIN);
	uint32_t n = 0;
	for (int q = 0;;) {
		struct timespec to = { 0, 1000000 };
		while (clock_nanosleep(CLOCK_MONOTONIC, 0, &to, &to)) ;
		if (P->progress[MAIN] == 20) { puts("ready"); fflush(stdout); close(0); close(1); close(2); }
		if (write(pp[1], &n, 4) == 4) n++;
		__atomic_add_fetch(&word, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &word, FUTEX_WAKE, 1);
		union sigval v = { .sival_int = q };
		if (n % 8 == 0) {
			if (pthread_sigqueue(t[5], SIGRTMIN + 1, v) == 0) q++;
			pthread_kill(t[8], SIGUSR1);
		}
		P->progress[MAIN]++;
	}
}
