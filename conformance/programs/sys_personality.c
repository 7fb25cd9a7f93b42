// kind: task
// state: personality flags
// users: root nobody
// mutate: task_core_entry.personality
// nocriu: restore: it loses the flags
// nocriu: mutate: it loses the flags
#include "conformance.h"
#include <sys/personality.h>

int main(int argc, char **argv)
{
	conf_init(argc, argv);
	SYS(personality(PER_LINUX | ADDR_NO_RANDOMIZE | UNAME26 | SHORT_INODE | STICKY_TIMEOUTS));
	conf_ready();
	conf_wait();
	SAME(personality(0xffffffff), PER_LINUX | ADDR_NO_RANDOMIZE | UNAME26 | SHORT_INODE | STICKY_TIMEOUTS);
	conf_pass();
}
