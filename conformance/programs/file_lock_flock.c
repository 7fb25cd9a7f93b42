// kind: locks
// state: flock: shared by two, exclusive inherited by a child which alone still has it, one waits
// users: root nobody
// mutate: file_lock_entry.type file_lock_entry
// short: yes
// nouser: it looks itself up in /proc, which shows other pids
#include "memfile.h"
#include <sys/file.h>

static int ex;

static void heir(void)
{
	mf_mark("heir-set");
	conf_wait();
	mf_await("parent-looked");
	OK(flock(ex, LOCK_UN));
	mf_mark("heir-unlocked");
}

static void waiter(void)
{
	int fd = SYS(open("ex", O_RDONLY));

	SYS(flock(fd, LOCK_SH));
	mf_mark("waiter-got-it");
}

int main(int argc, char **argv)
{
	int sh1, sh2, probe;
	pid_t h, w;

	conf_init(argc, argv);
	mf_file("sh", 10, 1);
	mf_file("ex", 10, 1);
	sh1 = SYS(open("sh", O_RDONLY));
	sh2 = SYS(open("sh", O_RDWR));
	SYS(flock(sh1, LOCK_SH));
	SYS(flock(sh2, LOCK_SH));
	ex = SYS(open("ex", O_RDWR));
	SYS(flock(ex, LOCK_EX));
	h = mf_spawn(heir);
	mf_await("heir-set");
	close(ex);
	w = mf_spawn(waiter);
	UNTIL(conf_in_syscall(w, SYS_flock), "a child to wait for the lock");
	conf_ready();
	conf_wait();
	probe = OK(open("sh", O_RDONLY));
	OK(flock(probe, LOCK_SH | LOCK_NB));
	CHECK(flock(probe, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "the shared locks are gone");
	OK(flock(sh1, LOCK_UN));
	CHECK(flock(probe, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "the second shared lock is gone");
	OK(flock(sh2, LOCK_UN));
	OK(flock(probe, LOCK_EX | LOCK_NB));
	probe = OK(open("ex", O_RDONLY));
	CHECK(flock(probe, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK, "the exclusive lock is gone");
	UNTIL(conf_in_syscall(w, SYS_flock), "the waiting child to wait again");
	mf_mark("parent-looked");
	mf_await("waiter-got-it");
	conf_reap_ok(h);
	conf_reap_ok(w);
	OK(flock(probe, LOCK_EX | LOCK_NB));
	conf_pass();
}
