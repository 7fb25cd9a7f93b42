// kind: credentials
// state: real, effective, saved and file-system user and group ids, all different
// users: root; only root can have several
// mutate: creds_entry.uid=0 creds_entry.euid=0 creds_entry.suid=0 creds_entry.fsuid=0
// mutate: creds_entry.gid=0 creds_entry.egid=0 creds_entry.sgid=0 creds_entry.fsgid=0
#include "conformance.h"
#include <sys/fsuid.h>

static void check(void)
{
	char v[128];

	/* real, effective, saved, file system; the kernel's words */
	conf_status_field(getpid(), "Uid", v, sizeof(v));
	CHECK(!strcmp(v, "1001\t1002\t1003\t1004"), "user ids are %s", v);
	conf_status_field(getpid(), "Gid", v, sizeof(v));
	CHECK(!strcmp(v, "2001\t2002\t2003\t2004"), "group ids are %s", v);
}

int main(int argc, char **argv)
{
	uid_t r, e, s;

	conf_init(argc, argv);
	SYS(chmod(conf_dir, 0777));
	/* Keep the capability to set the file-system ids after the switch. */
	SYS(prctl(PR_SET_KEEPCAPS, 1));
	SYS(setresgid(2001, 2002, 2003));
	setfsgid(2004);
	SYS(setresuid(1001, 1002, 1003));
	setfsuid(1004);
	/* The effective set is empty now, and fsuid follows euid unless it is one of ours: */
	if (setfsuid(-1) != 1004) {
		/* needs CAP_SETUID in the effective set */
		struct { unsigned version; int pid; } h = { 0x20080522, 0 };
		struct { unsigned e, p, i; } d[2];

		SYS(syscall(SYS_capget, &h, d));
		d[0].e = d[0].p;
		d[1].e = d[1].p;
		SYS(syscall(SYS_capset, &h, d));
		setfsgid(2004);
		setfsuid(1004);
	}
	SAME(setfsuid(-1), 1004);
	SAME(setfsgid(-1), 2004);
	check();
	conf_ready();
	conf_wait();
	check();
	OK(getresuid(&r, &e, &s));
	SAME(r, 1001);
	SAME(e, 1002);
	SAME(s, 1003);
	OK(getresgid(&r, &e, &s));
	SAME(r, 2001);
	SAME(e, 2002);
	SAME(s, 2003);
	conf_pass();
}
