// kind: credentials
// state: seccomp filters: one for all threads, one in a thread only, one with a flag, inherited by a child; a new one can still be put on all threads at once
// users: root nobody
// mutate: thread_core_entry.seccomp_mode
// unprivileged: its filters cannot be
#include "conformance.h"
#include <linux/filter.h>
#include <linux/seccomp.h>

static volatile int set;

/* A call that fails with an error of its own; everything else is allowed. */
static int forbid(int nr, int err, int flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

#define FAILS(call, err) do { \
	errno = 0; \
	CHECK((call) < 0 && errno == (err), #call ": %s", strerror(errno)); \
} while (0)

static void own(int err)
{
	FAILS(acct(NULL), err);
	CHECK(!(chroot("/nonexistent") < 0 && errno == ENOTTY), "another thread's filter");
}

static void *run(void *arg)
{
	SYS(forbid(SYS_chroot, ENOTTY, 0));
	set = 1;
	conf_wait();
	FAILS(chroot("/"), ENOTTY);
	FAILS(acct(NULL), EXDEV);
	UNTIL(set == 3, "the others");
	/* Possible only if the others' filters are the very ones that this thread has. */
	SAME(forbid(SYS_sethostname, EDOM, SECCOMP_FILTER_FLAG_TSYNC), 0);
	set = 4;
	return NULL;
}

static void *other(void *arg)
{
	conf_wait();
	own(EXDEV);
	__atomic_add_fetch(&set, 1, __ATOMIC_SEQ_CST);
	UNTIL(set == 4, "the filter for all");
	FAILS(sethostname("x", 1), EDOM);
	FAILS(chroot("/"), ENOTTY);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t, u;
	pid_t pid;
	int st;

	volatile int *filtered;

	conf_init(argc, argv);
	filtered = conf_shared(sizeof(*filtered));
	SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	SYS(forbid(SYS_acct, EXDEV, SECCOMP_FILTER_FLAG_LOG));
	pid = SYS(fork());
	if (pid == 0) {
		SYS(forbid(SYS_acct, EILSEQ, 0));
		*filtered = 1;
		conf_wait();
		own(EILSEQ);
		_exit(7);
	}
	PT(pthread_create(&u, NULL, other, NULL));
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set, "the thread");
	UNTIL(*filtered, "the child");
	conf_ready();
	conf_wait();
	own(EXDEV);
	__atomic_add_fetch(&set, 1, __ATOMIC_SEQ_CST);
	PT(pthread_join(t, NULL));
	PT(pthread_join(u, NULL));
	FAILS(sethostname("x", 1), EDOM);
	FAILS(chroot("/"), ENOTTY);
	SAME(OK(waitpid(pid, &st, 0)), pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 7, "the child ended with %#x", st);
	conf_pass();
}
