// kind: signals
// state: nested handlers that interrupted a computation and a system call; each returns to what it interrupted
// users: root nobody
// mutate: task_core_entry.blk_sigset|thread_core_entry.blk_sigset user_x86_regs_entry.sp
#include "conformance.h"

static volatile int depth, seen_depth;

static uint64_t mask_now(void)
{
	uint64_t m;

	OK(syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &m, 8));
	return m;
}

static void handler(int sig)
{
	volatile double x = sig * 1.5;
	uint64_t m = mask_now();

	depth++;
	if (sig == SIGUSR1) {
		raise(SIGUSR2);
	} else {
		seen_depth = depth;
		conf_ready();
		conf_wait();
		SAME(m, 1UL << (SIGUSR1 - 1) | 1UL << (SIGUSR2 - 1) | 1UL << (SIGWINCH - 1));
	}
	SAME(mask_now(), m);
	SAME(x * 10, sig * 15);
	SAME(depth, sig == SIGUSR1 ? 1 : 2);
	depth--;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = SA_RESTART };
	volatile double acc = 0.1;
	int p[2], i;
	char c;
	pid_t child;

	conf_init(argc, argv);
	sigaddset(&sa.sa_mask, SIGWINCH);
	SYS(sigaction(SIGUSR1, &sa, NULL));
	SYS(sigaction(SIGUSR2, &sa, NULL));
	SYS(pipe(p));
	for (i = 0; i < 10; i++)
		acc *= 1.25;
	/* The child sends the signal while we sit in read, and the byte after go. */
	child = SYS(fork());
	if (child == 0) {
		close(p[0]);
		UNTIL(conf_in_syscall(getppid(), SYS_read), "the parent to read");
		SYS(kill(getppid(), SIGUSR1));
		conf_wait();
		conf_sleep_ms(20);
		OK(write(p[1], "y", 1));
		_exit(0);
	}
	close(p[1]);
	SAME(OK(read(p[0], &c, 1)), 1);
	SAME(c, 'y');
	SAME(seen_depth, 2);
	SAME(depth, 0);
	SAME(mask_now(), 0);
	for (i = 0; i < 10; i++)
		acc /= 1.25;
	CHECK(acc > 0.0999999 && acc < 0.1000001, "the computation gave %g", acc);
	conf_reap_ok(child);
	conf_pass();
}
