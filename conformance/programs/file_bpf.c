// kind: files
// state: a BPF map and a BPF program, open and attached to nothing
// users: root; only root may load programs here
// refused: BPF map
#include "conformance.h"
#include <linux/bpf.h>

int main(int argc, char **argv)
{
	struct bpf_insn code[] = { { .code = 0xb7 }, { .code = 0x95 } }; /* return 0 */
	union bpf_attr a = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 3 };
	uint32_t key = 1;
	uint64_t v = 77;
	int map, prog;

	conf_init(argc, argv);
	map = syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof(a));
	if (map < 0)
		conf_skip("BPF_MAP_CREATE: %s", strerror(errno));
	memset(&a, 0, sizeof(a));
	a.map_fd = map;
	a.key = (uintptr_t)&key;
	a.value = (uintptr_t)&v;
	SYS(syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &a, sizeof(a)));
	memset(&a, 0, sizeof(a));
	a.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	a.insns = (uintptr_t)code;
	a.insn_cnt = 2;
	a.license = (uintptr_t) "GPL";
	prog = SYS(syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof(a)));
	conf_ready();
	conf_wait();
	SYS(fcntl(prog, F_GETFD));
	v = 0;
	memset(&a, 0, sizeof(a));
	a.map_fd = map;
	a.key = (uintptr_t)&key;
	a.value = (uintptr_t)&v;
	OK(syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &a, sizeof(a)));
	SAME(v, 77);
	conf_pass();
}
