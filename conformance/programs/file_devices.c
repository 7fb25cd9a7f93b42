// kind: files
// state: /dev/null, zero, full, random, urandom
// users: root nobody
// mutate: reg_file_entry.name
// short: yes
#include "memfile.h"

int main(int argc, char **argv)
{
	char a[32], b[32], path[PATH_MAX];
	int null, zero, full, urandom, random;

	conf_init(argc, argv);
	null = SYS(open("/dev/null", O_RDWR));
	zero = SYS(open("/dev/zero", O_RDONLY));
	full = SYS(open("/dev/full", O_RDWR));
	urandom = SYS(open("/dev/urandom", O_RDONLY));
	random = SYS(open("/dev/random", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
	SYS(read(urandom, a, sizeof(a)));
	conf_ready();
	conf_wait();
	SAME(write(null, a, sizeof(a)), sizeof(a));
	SAME(read(null, b, sizeof(b)), 0);
	SAME(read(zero, b, sizeof(b)), sizeof(b));
	mf_zero(b, sizeof(b), "/dev/zero");
	CHECK(write(full, a, 1) < 0 && errno == ENOSPC, "/dev/full is not full");
	SAME(read(urandom, b, sizeof(b)), sizeof(b));
	CHECK(memcmp(a, b, sizeof(a)), "/dev/urandom repeats itself");
	SAME(read(random, a, sizeof(a)), sizeof(a));
	SAME(fcntl(random, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	mf_link(0, path, sizeof(path));
	CHECK(!strcmp(path, "/dev/null"), "standard input is %s", path);
	conf_pass();
}
