// kind: pipes
// state: pipe in packet mode (O_DIRECT): the packets keep their boundaries
// users: root nobody
// mutate: pipe_data_entry pipe_entry.flags
// nocriu: refuses packet mode
#include "memfile.h"

int main(int argc, char **argv)
{
	static const int size[] = { 1, 100, 4096, 3, 4095, 17 };
	char buf[8192];
	int p[2], big[2];

	conf_init(argc, argv);
	SYS(pipe2(p, O_DIRECT));
	for (int i = 0; i < 6; i++) {
		mf_fill(buf, size[i], i);
		SAME(write(p[1], buf, size[i]), size[i]);
	}
	/* A packet larger than a page arrives as several. */
	SYS(pipe2(big, O_DIRECT | O_NONBLOCK));
	mf_fill(buf, 6000, 9);
	SAME(write(big[1], buf, 6000), 6000);
	conf_ready();
	conf_wait();
	SAME(fcntl(p[1], F_GETFL) & O_DIRECT, O_DIRECT);
	for (int i = 0; i < 5; i++) {
		SAME(read(p[0], buf, sizeof(buf)), size[i]);
		mf_check(buf, size[i], i, "packet");
	}
	SAME(read(p[0], buf, 5), 5);	/* the rest of a packet is thrown away */
	mf_check(buf, 5, 5, "first bytes of the last packet");
	SAME(write(p[1], "ab", 2), 2);
	SAME(write(p[1], "cd", 2), 2);
	SAME(read(p[0], buf, sizeof(buf)), 2);
	SAME(read(big[0], buf, sizeof(buf)), 4096);
	mf_check(buf, 4096, 9, "first part of a large packet");
	SAME(read(big[0], buf, sizeof(buf)), 6000 - 4096);
	mf_check_at(buf, 6000 - 4096, 9, 4096, "second part of a large packet");
	mf_empty(big[0], "packet pipe");
	conf_pass();
}
