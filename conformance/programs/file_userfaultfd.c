// kind: files
// state: a userfaultfd that watches nothing
// users: root nobody
// refused: userfaultfd
#include "conformance.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

int main(int argc, char **argv)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffd_msg msg;
	int fd;

	conf_init(argc, argv);
	fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1 /* UFFD_USER_MODE_ONLY */);
	if (fd < 0)
		conf_skip("userfaultfd: %s", strerror(errno));
	SYS(ioctl(fd, UFFDIO_API, &api));
	conf_ready();
	conf_wait();
	CHECK(read(fd, &msg, sizeof(msg)) < 0 && errno == EAGAIN, "the userfaultfd: %s", strerror(errno));
	conf_pass();
}
