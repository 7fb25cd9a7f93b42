// kind: task
// state: a process that made itself undumpable
// users: root nobody
// mutate: mm_entry.dumpable=1
// unprivileged: not allowed to trace it
#include "conformance.h"

int main(int argc, char **argv)
{
	conf_init(argc, argv);
	SYS(prctl(PR_SET_DUMPABLE, 0));
	conf_ready();
	conf_wait();
	SAME(prctl(PR_GET_DUMPABLE), 0);
	conf_pass();
}
