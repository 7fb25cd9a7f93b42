// kind: memory
// state: memory whose faults a process outside the tree answers: it holds the userfaultfd, the program does not
// users: root nobody
// refused: registered with a userfaultfd
#include "memfile.h"
#include "outside.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#define BIG (8UL << 20)

/* Who holds the userfaultfd only has to live. */
static void holder(void)
{
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	char *big, *watched, *between;
	int fd;

	conf_init(argc, argv);
	/* Much to copy, so that flags are read from a snapshot, if anywhere. */
	big = mf_anon(BIG);
	mf_fill(big, BIG, 1);
	between = SYS(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, SYS(open("/proc/self/exe", O_RDONLY)), 0));
	watched = mf_anon(4 * PAGE);
	mf_fill(watched, PAGE, 2);
	fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		conf_skip("no userfaultfd: %s", strerror(errno));
	SYS(fd);
	SYS(ioctl(fd, UFFDIO_API, &api));
	reg.range.start = (uintptr_t)watched;
	reg.range.len = 4 * PAGE;
	SYS(ioctl(fd, UFFDIO_REGISTER, &reg));
	if (out_fork() == 0)
		holder();
	SYS(close(fd));
	conf_ready();
	conf_wait();
	mf_check(big, BIG, 1, "the rest");
	mf_check(watched, PAGE, 2, "the page that is there");
	SAME(between[1], 'E');
	conf_pass();
}
