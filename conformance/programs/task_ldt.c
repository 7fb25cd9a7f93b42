// kind: task
// state: a descriptor table of the program's own (modify_ldt)
// users: root nobody
// refused: modify_ldt
#include "conformance.h"
#include <asm/ldt.h>

int main(int argc, char **argv)
{
	struct user_desc d = { .entry_number = 2, .base_addr = 0x1000, .limit = 0xfff, .seg_32bit = 1, .useable = 1 };
	char raw[64] = "";

	conf_init(argc, argv);
	if (syscall(SYS_modify_ldt, 0x11, &d, sizeof(d)) < 0)
		conf_skip("modify_ldt: %s", strerror(errno));
	conf_ready();
	conf_wait();
	CHECK(syscall(SYS_modify_ldt, 0, raw, sizeof(raw)) > 0 && raw[16], "the table is gone");
	conf_pass();
}
