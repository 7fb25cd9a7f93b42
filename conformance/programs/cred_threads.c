// kind: credentials
// state: threads with credentials of their own: user, groups, capabilities
// users: root; only root can choose them
// mutate: creds_entry.euid=0 creds_entry.groups creds_entry.cap_eff
#include "conformance.h"
#include <linux/capability.h>

#define N 3
static int ready_count;

/* The raw calls change the calling thread only. */
static void *run(void *arg)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2] = { 0 };
	long i = (long)arg;
	gid_t groups[2] = { 100 + i, 200 + i }, now[8];
	char before[2][128], v[128];
	pid_t tid = syscall(SYS_gettid);

	SYS(syscall(SYS_setgroups, 2, groups));
	SYS(syscall(SYS_setresgid, 5000 + i, 5000 + i, 5000 + i));
	if (i == 0) {
		/* uid 0 with two capabilities left */
		d[0].effective = 1u << CAP_CHOWN;
		d[0].permitted = d[0].effective | 1u << CAP_KILL;
		SYS(syscall(SYS_capset, &h, d));
	} else {
		SYS(syscall(SYS_setresuid, 6000 + i, 6000 + i, 7000 + i));
	}
	conf_status_field(tid, "CapPrm", before[0], sizeof(before[0]));
	conf_status_field(tid, "CapEff", before[1], sizeof(before[1]));
	__atomic_add_fetch(&ready_count, 1, __ATOMIC_SEQ_CST);
	conf_wait();
	SAME(OK(getgroups(8, now)), 2);
	SAME(now[0], groups[0]);
	SAME(now[1], groups[1]);
	SAME(geteuid(), i == 0 ? 0 : 6000 + i);
	SAME(getegid(), 5000 + i);
	conf_status_field(tid, "CapPrm", v, sizeof(v));
	CHECK(!strcmp(v, before[0]), "thread %ld: CapPrm is %s, was %s", i, v, before[0]);
	conf_status_field(tid, "CapEff", v, sizeof(v));
	CHECK(!strcmp(v, before[1]), "thread %ld: CapEff is %s, was %s", i, v, before[1]);
	return NULL;
}

int main(int argc, char **argv)
{
	char before[128], v[128];
	pthread_t t[N];
	long i;

	conf_init(argc, argv);
	SYS(chmod(conf_dir, 0777));
	conf_status_field(getpid(), "CapEff", before, sizeof(before));
	for (i = 0; i < N; i++)
		PT(pthread_create(&t[i], NULL, run, (void *)i));
	UNTIL(ready_count == N, "the threads");
	/* Setting other ids made us undumpable: files in /proc/self are root's. */
	conf_ready();
	conf_wait();
	for (i = 0; i < N; i++)
		PT(pthread_join(t[i], NULL));
	SAME(geteuid(), 0);
	conf_status_field(getpid(), "CapEff", v, sizeof(v));
	CHECK(!strcmp(v, before), "main: CapEff is %s, was %s", v, before);
	conf_pass();
}
