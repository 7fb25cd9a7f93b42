// kind: files
// state: standard input, output and error closed; and a child without a single descriptor
// users: root nobody
// mutate: fdinfo_entry
#include "memfile.h"

static void child(void)
{
	for (int i = 0; i < 100; i++)
		close(i);
	mf_mark("child-set");
	conf_wait();
	for (int i = 0; i < 100; i++)
		CHECK(fcntl(i, F_GETFD) < 0 && errno == EBADF, "descriptor %d of the child is open", i);
	SAME(open("/dev/null", O_RDWR), 0);
}

int main(int argc, char **argv)
{
	int keep;
	pid_t pid;

	conf_init(argc, argv);
	mf_file("f", 10, 1);
	SYS(open("f", O_RDONLY));
	keep = SYS(fcntl(3, F_DUPFD, 10));
	close(0);
	close(1);
	close(2);
	close(3);
	pid = mf_spawn(child);
	mf_await("child-set");
	conf_ready();
	conf_wait();
	for (int i = 0; i < 100; i++)
		if (i != keep)
			CHECK(fcntl(i, F_GETFD) < 0 && errno == EBADF, "descriptor %d is open", i);
	mf_expect_stream(keep, 10, 1, 0, "the only file");
	SAME(open("/dev/null", O_RDWR), 0);
	conf_reap_ok(pid);
	conf_pass();
}
