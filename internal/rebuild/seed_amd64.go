package rebuild

import (
	"encoding/binary"

	"github.com/fermata-cr/fermata/internal/sys"
)

// The seed's program: `1: mov $34,%eax (pause); syscall; jmp 1b`. Its syscall
// instruction serves for the one call that brings the region in.
// Behind it stands the init of a new pid namespace (pidns.go).
var seedCode = append(append([]byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}, make([]byte, seedInit-9)...),
	// 1: wait4(-1, NULL, WNOHANG|__WALL, NULL)
	0xb8, 61, 0, 0, 0, // mov $61,%eax
	0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, // mov $-1,%rdi
	0x31, 0xf6, // xor %esi,%esi
	0xba, 0x01, 0, 0, 0x40, // mov $0x40000001,%edx
	0x4d, 0x31, 0xd2, // xor %r10,%r10
	0x0f, 0x05, // syscall
	0x85, 0xc0, // test %eax,%eax
	0x7f, 0xe4, // jg 1b: one was reaped
	// kill(-1, 0): ESRCH when nobody else is left
	0xb8, 62, 0, 0, 0, // mov $62,%eax
	0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, // mov $-1,%rdi
	0x31, 0xf6, // xor %esi,%esi
	0x0f, 0x05, // syscall
	0x83, 0xf8, 0xfd, // cmp $-3,%eax
	0x74, 0x12, // je 2f
	// nanosleep(20 ms)
	0xb8, 35, 0, 0, 0, // mov $35,%eax
	0x48, 0x8d, 0x3d, 0x10, 0, 0, 0, // lea 3f(%rip),%rdi
	0x31, 0xf6, // xor %esi,%esi
	0x0f, 0x05, // syscall
	0xeb, 0xbd, // jmp 1b
	// 2: exit_group(0)
	0xb8, 231, 0, 0, 0, // mov $231,%eax
	0x31, 0xff, // xor %edi,%edi
	0x0f, 0x05, // syscall
	0xf4, // hlt
	// 3: struct timespec
	0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x2d, 0x31, 0x01, 0, 0, 0, 0,
)

const (
	seedSyscall = 5
	seedInit    = 16
)

// startAt sends a stopped task to an address, with nothing to restart.
func startAt(tid int, pc uint64) error {
	r, err := sys.GetRegs(tid)
	if err != nil {
		return err
	}
	r.Rip, r.Orig_rax = pc, ^uint64(0)
	return sys.SetRegs(tid, &r)
}

const (
	elfMachine = 62 // EM_X86_64
	seedBase   = 0x10000
)

// seedELF gives a tiny static ELF: one page of code.
func seedELF() []byte {
	const page = 4096
	le := binary.LittleEndian
	b := make([]byte, 2*page)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], elfMachine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], seedBase) // entry
	le.PutUint64(b[32:], 64)       // program headers
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 2)
	p := b[64:]
	le.PutUint32(p, 1)     // PT_LOAD
	le.PutUint32(p[4:], 5) // r-x
	le.PutUint64(p[8:], page)
	le.PutUint64(p[16:], seedBase)
	le.PutUint64(p[24:], seedBase)
	le.PutUint64(p[32:], page)
	le.PutUint64(p[40:], page)
	le.PutUint64(p[48:], page)
	p = b[64+56:]
	le.PutUint32(p, 0x6474e551) // PT_GNU_STACK
	le.PutUint32(p[4:], 6)
	copy(b[page:], seedCode)
	return b
}
