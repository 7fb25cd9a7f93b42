// kind: credentials
// state: a seccomp filter in one thread
// users: root nobody
// refused: seccomp
#include "conformance.h"
#include <linux/filter.h>
#include <linux/seccomp.h>

static volatile int set;

static void *run(void *arg)
{
	/* No chroot; everything else is allowed. */
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_chroot, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	SYS(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
	set = 1;
	conf_wait();
	CHECK(chroot("/") < 0 && errno == ENOTTY, "the filter is gone: %s", strerror(errno));
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;

	conf_init(argc, argv);
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set, "the thread");
	conf_ready();
	conf_wait();
	PT(pthread_join(t, NULL));
	CHECK(!(chroot("/nonexistent") < 0 && errno == ENOTTY), "the main thread has the filter too");
	conf_pass();
}
