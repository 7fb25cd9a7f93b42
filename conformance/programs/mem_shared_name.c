// kind: memory
// state: names of shared anonymous memory (PR_SET_VMA_ANON_NAME)
// users: root nobody
// mutate: part:pages
// nocriu: does not know them
#include "conformance.h"

int main(int argc, char **argv)
{
	char *p, buf[65536], line[128];
	pid_t pid;

	conf_init(argc, argv);
	p = conf_shared(3 * 4096);
	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, p, 3 * 4096, "our own") < 0)
		conf_skip("no names: %s", strerror(errno));
	memset(p, 'q', 4096);
	pid = SYS(fork());
	if (pid == 0) {
		while (p[4096] != 'w')
			conf_sleep_ms(1);
		p[4097] = 'v';
		_exit(0);
	}
	conf_ready();
	conf_wait();
	SAME(p[100], 'q');
	p[4096] = 'w';
	conf_reap_ok(pid);
	SAME(p[4097], 'v');
	CHECK(conf_read_file("/proc/self/maps", buf, sizeof(buf)), "maps");
	snprintf(line, sizeof(line), "[anon_shmem:our own]");
	CHECK(strstr(buf, line), "the name is gone");
	conf_pass();
}
