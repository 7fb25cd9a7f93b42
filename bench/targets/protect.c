// What it takes to make COUNT MiB of private memory copy-on-write or tracked, in
// nanoseconds: a fork; write protection by a userfaultfd, by one thread and by
// two; write protection that only notes who writes (PAGEMAP_SCAN).
#include "target.h"
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

// include/uapi/linux/fs.h, Linux 6.7.
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, any, report;
};
#define SCAN _IOWR('f', 16, struct scan)
#define SCAN_PROTECT 1
#define SCAN_WRITTEN 2
#define WP_ASYNC (1 << 15)

static char *m;
static size_t bytes;
static int fd;

static void make(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED || madvise(m, bytes, MADV_NOHUGEPAGE))
		die("mmap");
	for (size_t i = 0; i < bytes; i += 4096)
		m[i] = 1;
	fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	reg.range.start = (uintptr_t)m;
	reg.range.len = bytes;
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg))
		die("userfaultfd");
}

static void *half(void *arg)
{
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	wp.range.start = (uintptr_t)m + (arg ? bytes / 2 : 0);
	wp.range.len = bytes / 2;
	if (ioctl(fd, UFFDIO_WRITEPROTECT, &wp))
		die("UFFDIO_WRITEPROTECT");
	return NULL;
}

static void print(struct timespec *from)
{
	struct timespec to;
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("%lld\n", (to.tv_sec - from->tv_sec) * 1000000000LL + to.tv_nsec - from->tv_nsec);
	if (munmap(m, bytes) || close(fd))
		die("munmap");
}

int main(int argc, char **argv)
{
	struct timespec from;
	pthread_t t;
	bytes = (size_t)count_arg(argc, argv) << 20;

	make(0);
	fflush(stdout);
	clock_gettime(CLOCK_MONOTONIC, &from);
	pid_t pid = fork();
	if (pid == 0)
		_exit(0);
	print(&from);
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		die("fork");

	make(0);
	clock_gettime(CLOCK_MONOTONIC, &from);
	half(NULL);
	half(m);
	print(&from);

	make(0);
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (pthread_create(&t, NULL, half, m))
		die("pthread_create");
	half(NULL);
	pthread_join(t, NULL);
	print(&from);

	make(WP_ASYNC);
	int map = open("/proc/self/pagemap", O_RDONLY);
	struct scan s = { .size = sizeof(s), .flags = SCAN_PROTECT, .start = (uintptr_t)m, .end = (uintptr_t)m + bytes, .mask = SCAN_WRITTEN };
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (map < 0 || ioctl(map, SCAN, &s) < 0)
		die("PAGEMAP_SCAN");
	print(&from);
	return 0;
}
