// kind: memory
// state: transparent huge pages turned off for the process (PR_SET_THP_DISABLE)
// users: root nobody
// mutate: mm_entry.thp_disabled
#include "memfile.h"

int main(int argc, char **argv)
{
	conf_init(argc, argv);
	SYS(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	conf_ready();
	conf_wait();
	SAME(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
	conf_pass();
}
