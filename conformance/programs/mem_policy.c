// kind: memory
// state: NUMA policies: of a thread and not of another, of areas (set_mempolicy, mbind), in shared memory; a child with another policy for an area that it inherited
// users: root nobody
// mutate: fermata.thread_extra.policy fermata.vma_extra.policy
// nocriu: does not know them
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <linux/mempolicy.h>

#define SIZE (4 * 4096)

static volatile int *set;

static void policy(int mode, int want, void *at)
{
	unsigned long nodes[16] = { 0 };
	int got = -1;

	OK(syscall(SYS_get_mempolicy, &got, nodes, 1024, at, at ? MPOL_F_ADDR : 0));
	CHECK(got == mode, "policy %#x, not %#x, of %p", got, mode, at);
	SAME(nodes[0], want);
}

static void *run(void *arg)
{
	unsigned long node = 1;

	(void)arg;
	SYS(syscall(SYS_set_mempolicy, MPOL_BIND | MPOL_F_STATIC_NODES, &node, 64));
	set[0] = 1;
	conf_wait();
	policy(MPOL_BIND | MPOL_F_STATIC_NODES, 1, NULL);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned long node = 1;
	char *a, *b, *c;
	pthread_t t;
	pid_t pid;

	conf_init(argc, argv);
	set = conf_shared(4096);
	a = SYS(mmap(NULL, 3 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	b = SYS(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	c = conf_shared(SIZE);
	if (syscall(SYS_mbind, a + SIZE, SIZE, MPOL_PREFERRED, &node, 64, 0) < 0)
		conf_skip("mbind: %s", strerror(errno));
	memset(a, 'x', 3 * SIZE);
	SYS(syscall(SYS_mbind, b, SIZE, MPOL_INTERLEAVE, &node, 64, 0));
	SYS(syscall(SYS_mbind, c, SIZE, MPOL_BIND, &node, 64, 0));
	pid = SYS(fork());
	if (pid == 0) {
		SYS(syscall(SYS_mbind, b, SIZE, MPOL_LOCAL, NULL, 0, 0));
		set[1] = 1;
		conf_wait();
		policy(MPOL_LOCAL, 0, b);
		policy(MPOL_PREFERRED, 1, a + SIZE);
		policy(MPOL_DEFAULT, 0, NULL);
		_exit(0);
	}
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set[0] && set[1], "the others");
	conf_ready();
	conf_wait();
	policy(MPOL_DEFAULT, 0, NULL);
	policy(MPOL_DEFAULT, 0, a);
	policy(MPOL_PREFERRED, 1, a + SIZE);
	policy(MPOL_DEFAULT, 0, a + 2 * SIZE);
	policy(MPOL_INTERLEAVE, 1, b);
	policy(MPOL_BIND, 1, c);
	for (int i = 0; i < 3 * SIZE; i++)
		SAME(a[i], 'x');
	PT(pthread_join(t, NULL));
	conf_reap_ok(pid);
	conf_pass();
}
