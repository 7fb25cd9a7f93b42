// kind: credentials
// state: capabilities: permitted, effective, inheritable, ambient and bounding sets, all different
// users: root; only root has capabilities
// mutate: creds_entry.cap_eff creds_entry.cap_prm creds_entry.cap_inh creds_entry.cap_amb
// mutate: creds_entry.cap_bnd
#include "conformance.h"
#include <linux/capability.h>

static const char *const names[] = { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" };

static void look(char v[5][64])
{
	int i;

	for (i = 0; i < 5; i++)
		conf_status_field(getpid(), names[i], v[i], 64);
}

int main(int argc, char **argv)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2];
	char before[5][64], now[5][64];
	int i;

	conf_init(argc, argv);
	SYS(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT));
	SYS(prctl(PR_CAPBSET_DROP, CAP_WAKE_ALARM));
	SYS(prctl(PR_CAPBSET_DROP, CAP_SYSLOG));
	SYS(syscall(SYS_capget, &h, d));
	d[0].permitted &= ~(1u << CAP_SYS_TIME | 1u << CAP_MKNOD);
	d[0].inheritable = 1u << CAP_NET_ADMIN | 1u << CAP_NET_RAW | 1u << CAP_CHOWN;
	d[0].effective = d[0].permitted & ~(1u << CAP_NET_BIND_SERVICE | 1u << CAP_KILL);
	d[1].effective = d[1].permitted & ~(1u << (CAP_BLOCK_SUSPEND - 32));
	SYS(syscall(SYS_capset, &h, d));
	SYS(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0));
	SYS(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	look(before);
	conf_ready();
	conf_wait();
	look(now);
	for (i = 0; i < 5; i++)
		CHECK(!strcmp(now[i], before[i]), "%s is %s, was %s", names[i], now[i], before[i]);
	SAME(prctl(PR_CAPBSET_READ, CAP_SYS_BOOT), 0);
	SAME(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 1);
	SAME(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0), 0);
	conf_pass();
}
