// kind: files
// state: a performance counter of the program's own (perf_event_open), and its pages
// users: root nobody
// refused: perf event
#include "conformance.h"
#include <linux/perf_event.h>

int main(int argc, char **argv)
{
	struct perf_event_attr a = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(a), .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1, .exclude_hv = 1 };
	uint64_t n;
	int fd;

	conf_init(argc, argv);
	fd = syscall(SYS_perf_event_open, &a, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (fd < 0)
		conf_skip("perf_event_open: %s", strerror(errno));
	SYS(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0));
	conf_ready();
	conf_wait();
	SAME(OK(read(fd, &n, 8)), 8);
	CHECK(n > 0, "it does not count");
	conf_pass();
}
