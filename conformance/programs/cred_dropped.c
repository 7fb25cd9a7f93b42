// kind: credentials
// state: a daemon that was started as root and gave it up: other user, no capabilities, not dumpable
// users: root; it starts as root
// mutate: creds_entry.uid=0 mm_entry.dumpable=1
#include "conformance.h"
#include <grp.h>

int main(int argc, char **argv)
{
	gid_t g = 12345, now[4];
	char v[64];

	conf_init(argc, argv);
	SYS(chmod(conf_dir, 0777));
	SYS(setgroups(1, &g));
	SYS(setgid(2345));
	SYS(setuid(1234));
	SAME(prctl(PR_GET_DUMPABLE), 0);
	conf_ready();
	conf_wait();
	SAME(getuid(), 1234);
	SAME(geteuid(), 1234);
	SAME(getgid(), 2345);
	SAME(OK(getgroups(4, now)), 1);
	SAME(now[0], g);
	SAME(prctl(PR_GET_DUMPABLE), 0);
	CHECK(setuid(0) < 0 && errno == EPERM, "root is within reach again");
	conf_status_field(getpid(), "CapPrm", v, sizeof(v));
	CHECK(!strcmp(v, "0000000000000000"), "CapPrm is %s", v);
	conf_pass();
}
