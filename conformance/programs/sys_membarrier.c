// kind: task
// state: registration for private expedited membarriers
// users: root nobody
// mutate: task_core_entry.membarrier_registration_mask
#include "conformance.h"
#include <linux/membarrier.h>

int main(int argc, char **argv)
{
	long regs;

	conf_init(argc, argv);
	SYS(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
	SYS(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0));
	SYS(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0));
	regs = syscall(SYS_membarrier, 1 << 9 /* GET_REGISTRATIONS */, 0, 0);
	conf_ready();
	conf_wait();
	CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0, "not registered any more: %s", strerror(errno));
	CHECK(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) == 0, "no sync-core: %s", strerror(errno));
	SAME(syscall(SYS_membarrier, 1 << 9, 0, 0), regs);
	conf_pass();
}
