// kind: memory
// state: process that may not make memory writable and executable (PR_SET_MDWE), with code mapped before; a child that inherited it, one that may
// users: root nobody
// mutate: fermata.mm_extra.mdwe
// unprivileged: only root can read shared anonymous memory whole
#include "memfile.h"

#define SET_MDWE 65
#define GET_MDWE 66
#define REFUSE 1
#define NO_INHERIT 2

static void refuses(char *p, int flags)
{
	SAME(prctl(GET_MDWE, 0, 0, 0, 0), flags);
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) < 0 && errno == EACCES, "memory can be made executable");
	CHECK(mmap(NULL, PAGE, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EACCES,
	      "memory can be mapped writable and executable");
}

int main(int argc, char **argv)
{
	static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 }; /* mov $42,%eax; ret */
	char *p, *x;
	volatile int *there;
	pid_t heir, any;

	conf_init(argc, argv);
	there = conf_shared(PAGE);
	p = mf_anon(2 * PAGE);
	mf_fill(p, 2 * PAGE, 1);
	x = SYS(mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	memcpy(x, code, sizeof code);
	if (prctl(SET_MDWE, REFUSE | NO_INHERIT, 0, 0, 0) < 0)
		conf_skip("this kernel has no PR_SET_MDWE with PR_MDWE_NO_INHERIT");
	any = SYS(fork());
	if (any == 0) {
		there[0] = 1;
		conf_wait();
		SAME(prctl(GET_MDWE, 0, 0, 0, 0), 0);
		OK(mprotect(p, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
		_exit(0);
	}
	heir = SYS(fork());
	if (heir == 0) {
		SYS(prctl(SET_MDWE, REFUSE, 0, 0, 0));
		heir = SYS(fork());
		if (heir == 0)
			there[1] = 1;
		conf_wait();
		refuses(p, REFUSE);
		if (heir != 0)
			conf_reap_ok(heir);
		_exit(0);
	}
	while (!there[0] || !there[1])
		usleep(1000);
	conf_ready();
	conf_wait();
	refuses(p, REFUSE | NO_INHERIT);
	SAME(((int (*)(void))x)(), 42);
	mf_check(p, 2 * PAGE, 1, "content");
	conf_reap_ok(any);
	conf_reap_ok(heir);
	conf_pass();
}
