// kind: files
// state: 2,500 descriptors of all kinds, numbers up to the limit with gaps, each with an offset of its own
// users: root nobody
// mutate: reg_file_entry.pos
// nocriu: needs descriptors of its own above the highest
#include "memfile.h"
#include <sys/eventfd.h>

#define N 2000

int main(int argc, char **argv)
{
	struct rlimit lim;
	int fd[N], ev[250], p[250][2], top;

	conf_init(argc, argv);
	SYS(getrlimit(RLIMIT_NOFILE, &lim));
	if (lim.rlim_max < 4096)
		conf_skip("only %ld descriptors are allowed", (long)lim.rlim_max);
	lim.rlim_cur = lim.rlim_max;
	SYS(setrlimit(RLIMIT_NOFILE, &lim));
	mf_file("f", 8 * N, 1);
	for (int i = 0; i < N; i++) {
		fd[i] = SYS(open("f", O_RDONLY));
		SYS(lseek(fd[i], 8 * i, SEEK_SET));
		if (i % 10 == 9) {	/* make gaps, and fill the place with something else */
			close(fd[i]);
			fd[i] = -1;
		}
	}
	for (int i = 0; i < 125; i++) {
		ev[i] = SYS(eventfd(i, EFD_NONBLOCK));
		SYS(pipe(p[i]));
		SYS(write(p[i][1], &i, sizeof(i)));
	}
	top = lim.rlim_max - 1;
	SYS(dup2(fd[5], top));
	conf_ready();
	conf_wait();
	for (int i = 0; i < N; i++)
		if (fd[i] >= 0) {
			uint64_t v;

			SAME(lseek(fd[i], 0, SEEK_CUR), 8 * i);
			SAME(read(fd[i], &v, 8), 8);
			SAME(v, mf_word(1, i));
		}
	for (int i = 0; i < 125; i++) {
		uint64_t v;
		int k;

		if (i) {
			SAME(read(ev[i], &v, 8), 8);
			SAME(v, i);
		}
		SAME(read(p[i][0], &k, sizeof(k)), sizeof(k));
		SAME(k, i);
	}
	CHECK(mf_same_file(getpid(), top, getpid(), fd[5]), "the highest descriptor is another file");
	SAME(lseek(top, 0, SEEK_CUR), 48);
	CHECK(fcntl(top - 1, F_GETFD) < 0, "a descriptor is open that was not");
	conf_pass();
}
