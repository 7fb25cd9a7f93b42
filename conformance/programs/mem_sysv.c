// kind: memory
// state: SysV shared memory: a segment by key with owner and mode, shared with a child; one marked for removal; one attached read-only, and one of which the middle was unmapped
// users: root nobody
// nocopies: both would have the same segments; a restore of copies refuses that
// mutate: part:pages vma_entry.shmid
// unprivileged: only root can read shared anonymous memory whole
#include "conformance.h"
#include <sys/shm.h>

#define KEY 0x00c0ffee
#define SIZE (10 * 4096 + 100)

static int keyed, doomed, holed;
static char *k, *d, *r, *h;

static struct shmid_ds stat_of(int id)
{
	struct shmid_ds s;

	OK(shmctl(id, IPC_STAT, &s));
	return s;
}

static void same(const char *p, int from, int to, int seed)
{
	for (int i = from; i < to; i++)
		CHECK(p[i] == (char)(i * 13 + seed), "byte %d is %#x", i, p[i]);
}

static void set(char *p, int n, int seed)
{
	for (int i = 0; i < n; i++)
		p[i] = (char)(i * 13 + seed);
}

int main(int argc, char **argv)
{
	volatile int *flag = conf_shared(sizeof(*flag));
	pid_t pid;
	int st;

	conf_init(argc, argv);
	keyed = SYS(shmget(KEY, SIZE, IPC_CREAT | IPC_EXCL | 0640));
	doomed = SYS(shmget(IPC_PRIVATE, SIZE, 0600));
	holed = SYS(shmget(IPC_PRIVATE, SIZE, 0600));
	k = SYS(shmat(keyed, NULL, 0));
	d = SYS(shmat(doomed, NULL, 0));
	r = SYS(shmat(keyed, NULL, SHM_RDONLY));
	h = SYS(shmat(holed, NULL, 0));
	SYS(shmctl(doomed, IPC_RMID, NULL));
	set(k, SIZE, 1);
	set(d, 4096, 2);
	set(h, SIZE, 3);
	SYS(munmap(h + 2 * 4096, 3 * 4096));
	SYS(mprotect(h + 6 * 4096, 4096, PROT_READ));
	pid = SYS(fork());
	if (pid == 0) {
		OK(shmdt(r));
		conf_wait();
		UNTIL(*flag == 1, "the parent");
		CHECK(k[5] == 99, "the keyed segment is not shared with the parent");
		d[7] = 55;
		*flag = 2;
		_exit(0);
	}
	UNTIL(stat_of(keyed).shm_nattch == 3, "the child");
	conf_ready();
	conf_wait();
	same(k, 0, SIZE, 1);
	same(r, 0, SIZE, 1);
	same(d, 0, 4096, 2);
	for (int i = 4096; i < SIZE; i++)
		SAME(d[i], 0);
	same(h, 0, 2 * 4096, 3);
	same(h, 5 * 4096, SIZE, 3);
	SAME(OK(shmget(KEY, 0, 0)), keyed);
	SAME(stat_of(keyed).shm_nattch, 3);
	SAME(stat_of(keyed).shm_perm.mode & 0777, 0640);
	SAME(stat_of(keyed).shm_perm.uid, geteuid());
	SAME(stat_of(keyed).shm_segsz, SIZE);
	CHECK(stat_of(doomed).shm_perm.mode & SHM_DEST, "not marked for removal any more");
	SAME(stat_of(doomed).shm_nattch, 2);
	CHECK(!(stat_of(holed).shm_perm.mode & SHM_DEST), "marked for removal");
	k[5] = 99;
	SAME(r[5], 99);
	*flag = 1;
	SAME(OK(waitpid(pid, &st, 0)), pid);
	SAME(st, 0);
	SAME(d[7], 55);
	OK(shmdt(d));
	CHECK(shmctl(doomed, IPC_STAT, &(struct shmid_ds){}) < 0, "the segment has not gone with its last user");
	OK(shmdt(h));
	SAME(stat_of(holed).shm_nattch, 0);
	OK(shmctl(holed, IPC_RMID, NULL));
	OK(shmctl(keyed, IPC_RMID, NULL));
	conf_pass();
}
