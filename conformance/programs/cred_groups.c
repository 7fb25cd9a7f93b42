// kind: credentials
// state: supplementary groups, many and large ones
// users: root; only root can choose them
// mutate: creds_entry.groups
#include "conformance.h"
#include <grp.h>

#define N 300
static gid_t groups[N], now[N];

int main(int argc, char **argv)
{
	int i;

	conf_init(argc, argv);
	for (i = 0; i < N; i++)
		groups[i] = i * 7 + 3;
	groups[N - 1] = 4000000000u;
	SYS(setgroups(N, groups));
	/* As the kernel sorts them. */
	SAME(SYS(getgroups(N, groups)), N);
	conf_ready();
	conf_wait();
	SAME(OK(getgroups(N, now)), N);
	CHECK(!memcmp(now, groups, sizeof(now)), "other groups than before");
	conf_pass();
}
