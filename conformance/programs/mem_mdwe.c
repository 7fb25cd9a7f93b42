// kind: memory
// state: process that may not make memory writable and executable (PR_SET_MDWE), with code mapped before
// users: root nobody
// refused: it does not admit memory that is writable and executable
#include "memfile.h"

#define SET_MDWE 65
#define GET_MDWE 66

int main(int argc, char **argv)
{
	char *p;

	conf_init(argc, argv);
	p = mf_anon(2 * PAGE);
	mf_fill(p, 2 * PAGE, 1);
	if (prctl(SET_MDWE, 1, 0, 0, 0) < 0)
		conf_skip("this kernel has no PR_SET_MDWE");
	conf_ready();
	conf_wait();
	SAME(prctl(GET_MDWE, 0, 0, 0, 0), 1);
	CHECK(mprotect(p, PAGE, PROT_READ | PROT_EXEC) < 0 && errno == EACCES, "memory can be made executable");
	CHECK(mmap(NULL, PAGE, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EACCES,
	      "memory can be mapped writable and executable");
	mf_check(p, 2 * PAGE, 1, "content");
	conf_pass();
}
