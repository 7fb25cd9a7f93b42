// kind: io_uring
// state: io_uring whose rings lie in the program's own memory (NO_MMAP)
// users: root nobody
// refused: IORING_SETUP_NO_MMAP
#include "uring.h"

int main(int argc, char **argv)
{
	struct io_uring_params p = { .flags = UR_NO_MMAP };
	char *mem;
	int fd;

	conf_init(argc, argv);
	mem = SYS(mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0));
	((uint64_t *)&p.cq_off)[4] = (uintptr_t)mem; /* user_addr */
	((uint64_t *)&p.sq_off)[4] = (uintptr_t)mem + 4096;
	fd = syscall(SYS_io_uring_setup, 4, &p);
	if (fd < 0)
		conf_skip("io_uring with NO_MMAP: %s", strerror(errno));
	conf_ready();
	conf_wait();
	SAME(OK(syscall(SYS_io_uring_enter, fd, 0, 0, 0, NULL, 0)), 0);
	conf_pass();
}
