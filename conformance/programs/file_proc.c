// kind: files
// state: files of /proc and /sys: the program's own, a child's, a directory
// users: root nobody
// mutate: reg_file_entry.name
// nocriu: restore: opens a file of /proc before the task is there
// nouser: it looks itself up in /proc, which shows other pids
#include "memfile.h"

static void sleeper(void)
{
	mf_mark("child-set");
	conf_wait();
	mf_await("parent-done");
}

int main(int argc, char **argv)
{
	char buf[4096], want[64];
	int self, child, dir, sys, status;
	pid_t pid;

	conf_init(argc, argv);
	pid = mf_spawn(sleeper);
	mf_await("child-set");
	self = SYS(open("/proc/self/status", O_RDONLY));
	snprintf(buf, sizeof(buf), "/proc/%d/status", pid);
	child = SYS(open(buf, O_RDONLY));
	dir = SYS(open("/proc/self", O_RDONLY | O_DIRECTORY));
	sys = SYS(open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", O_RDONLY));
	SYS(read(sys, buf, 3));
	conf_ready();
	conf_wait();
	SYS(read(self, buf, sizeof(buf) - 1));
	snprintf(want, sizeof(want), "\nPid:\t%d\n", getpid());
	CHECK(strstr(buf, want), "/proc/self/status is not ours");
	memset(buf, 0, sizeof(buf));
	OK(read(child, buf, sizeof(buf) - 1));
	snprintf(want, sizeof(want), "\nPid:\t%d\n", pid);
	CHECK(strstr(buf, want), "the child's status is another's");
	status = OK(openat(dir, "stat", O_RDONLY));
	memset(buf, 0, sizeof(buf));
	OK(read(status, buf, sizeof(buf) - 1));
	SAME(atoi(buf), getpid());
	SAME(lseek(sys, 0, SEEK_CUR), 3);
	memset(buf, 0, sizeof(buf));
	OK(read(sys, buf, sizeof(buf) - 1));
	CHECK(buf[0] >= '0' && buf[0] <= '9', "the file of /sys gives %s", buf);
	mf_mark("parent-done");
	conf_reap_ok(pid);
	conf_pass();
}
