// kind: memory
// state: a private mapping of shared anonymous memory: pages written are its own, the others those of the object
// users: root; only root can open map_files
// mutate: part:pages
#include "conformance.h"
#include <fcntl.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
	const long page = sysconf(_SC_PAGESIZE);
	char *shared, *own, link[64];
	int fd;

	conf_init(argc, argv);
	shared = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED, "shared memory: %s", strerror(errno));
	snprintf(link, sizeof(link), "/proc/self/map_files/%lx-%lx", (long)shared, (long)shared + 3 * page);
	fd = open(link, O_RDWR);
	CHECK(fd >= 0, "%s: %s", link, strerror(errno));
	own = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(own != MAP_FAILED, "private mapping: %s", strerror(errno));
	close(fd);
	shared[0] = 1;
	shared[page] = 2;
	own[page] = 3;
	conf_ready();
	conf_wait();
	CHECK(own[0] == 1, "a page that was not written is %d", own[0]);
	CHECK(shared[page] == 2 && own[page] == 3, "a page that was written is %d, the object's %d", own[page], shared[page]);
	shared[2 * page] = 4;
	CHECK(own[2 * page] == 4, "a page that nobody wrote does not follow the object: %d", own[2 * page]);
	conf_pass();
}
