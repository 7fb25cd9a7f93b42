// kind: files
// state: few descriptors with high numbers, and nothing between
// users: root nobody
// mutate: fdinfo_entry
#include "memfile.h"

int main(int argc, char **argv)
{
	static const int at[] = { 1023, 1024, 2047, 3000, 4095 };
	struct rlimit lim;
	int fd;

	conf_init(argc, argv);
	SYS(getrlimit(RLIMIT_NOFILE, &lim));
	if (lim.rlim_max < 4096)
		conf_skip("only %ld descriptors are allowed", (long)lim.rlim_max);
	lim.rlim_cur = 4096;
	SYS(setrlimit(RLIMIT_NOFILE, &lim));
	mf_file("f", 5000, 1);
	for (int i = 0; i < 5; i++) {
		fd = SYS(open("f", O_RDONLY));
		SYS(dup3(fd, at[i], i & 1 ? O_CLOEXEC : 0));
		SYS(lseek(fd, at[i], SEEK_SET));
		close(fd);
	}
	/* The limit may well be below what is open. */
	lim.rlim_cur = 64;
	SYS(setrlimit(RLIMIT_NOFILE, &lim));
	conf_ready();
	conf_wait();
	for (int i = 0; i < 5; i++) {
		SAME(fcntl(at[i], F_GETFD), i & 1 ? FD_CLOEXEC : 0);
		SAME(lseek(at[i], 0, SEEK_CUR), at[i]);
		mf_expect_stream(at[i], 50, 1, at[i], "file with a high number");
	}
	for (int i = 3; i < 4096; i++) {
		bool ours = false;

		for (int k = 0; k < 5; k++)
			ours |= at[k] == i;
		CHECK(ours || fcntl(i, F_GETFD) < 0, "descriptor %d is open", i);
	}
	OK(getrlimit(RLIMIT_NOFILE, &lim));
	SAME(lim.rlim_cur, 64);
	conf_pass();
}
