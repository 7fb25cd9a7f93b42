// kind: notification
// state: eventfd: counter, semaphore, the largest counter, one asleep in reading and one in writing
// users: root nobody
// mutate: eventfd_file_entry.counter eventfd_file_entry.flags
// short: yes
// nocriu: restores 32 bits of the counter
#include "memfile.h"
#include <sys/eventfd.h>

static int empty, full;

static void reader(void)
{
	uint64_t v;

	OK(read(empty, &v, 8));
	SAME(v, 5);
}

static void writer(void)
{
	uint64_t v = 3;

	SAME(write(full, &v, 8), 8);
}

int main(int argc, char **argv)
{
	uint64_t v, max = UINT64_MAX - 1;
	int a, sem;
	pid_t r, w;

	conf_init(argc, argv);
	a = SYS(eventfd(7, EFD_CLOEXEC));
	v = 1UL << 40;
	SYS(write(a, &v, 8));
	sem = SYS(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
	empty = SYS(eventfd(0, 0));
	full = SYS(eventfd(0, 0));
	SYS(write(full, &max, 8));
	r = mf_spawn(reader);
	w = mf_spawn(writer);
	UNTIL(conf_in_syscall(r, SYS_read), "a child to sleep in read");
	UNTIL(conf_in_syscall(w, SYS_write), "a child to sleep in write");
	conf_ready();
	conf_wait();
	SAME(fcntl(a, F_GETFL), O_RDWR);
	SAME(fcntl(a, F_GETFD), FD_CLOEXEC);
	SAME(fcntl(sem, F_GETFL), O_RDWR | O_NONBLOCK);
	SAME(read(a, &v, 8), 8);
	SAME(v, (1UL << 40) + 7);
	for (int i = 0; i < 3; i++) {
		SAME(read(sem, &v, 8), 8);
		SAME(v, 1);
	}
	CHECK(read(sem, &v, 8) < 0 && errno == EAGAIN, "the semaphore counts more");
	v = 5;
	SAME(write(empty, &v, 8), 8);
	conf_reap_ok(r);
	SAME(mf_poll(full, POLLIN | POLLOUT), POLLIN);
	SAME(read(full, &v, 8), 8);
	CHECK(v == max, "the largest counter is 0x%lx", v);
	conf_reap_ok(w);
	SAME(read(full, &v, 8), 8);
	SAME(v, 3);
	conf_pass();
}
