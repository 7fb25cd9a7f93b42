package collect

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	core_x86 "github.com/checkpoint-restore/go-criu/v8/crit/images/core-x86"
	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// callOf gives the number and arguments of the system call a thread is in.
func callOf(r *sys.Regs) (nr uint64, args [6]uint64) {
	return r.Orig_rax, [6]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}
}

// issuedCall reads the number from the instruction before the system call:
// `mov $nr,%eax; syscall` is how every libc writes it. 0 when it is not there.
func issuedCall(pid int, r *sys.Regs) uint64 {
	var b [7]byte
	if sys.ReadMem(pid, r.Rip-7, b[:]) != nil || b[0] != 0xb8 {
		return 0
	}
	return uint64(binary.LittleEndian.Uint32(b[1:]))
}

// setTimeout replaces the fourth argument of a call that is about to be issued
// again; false when the thread does not stand before that call.
func setTimeout(r *sys.Regs, nr uint64, a [6]uint64, v uint64) bool {
	if int64(r.Orig_rax) >= 0 || r.Rax != nr || r.Rdi != a[0] || r.Rsi != a[1] || r.Rdx != a[2] || r.R10 != a[3] {
		return false
	}
	r.R10 = v
	return true
}

// auditArch is the machine that a seccomp filter is told of
// (AUDIT_ARCH_X86_64, include/uapi/linux/audit.h).
const auditArch = 0xc000003e

// compat tells whether a thread runs 32-bit code.
func compat(r *sys.Regs) bool { return r.Cs == 0x23 }

func setArch(e *criu_core.CoreEntry, r *sys.Regs, tidAddr uint64) {
	u := proto.Uint64
	e.Mtype = criu_core.CoreEntry_X86_64.Enum()
	e.ThreadInfo = &core_x86.ThreadInfoX86{
		ClearTidAddr: u(tidAddr),
		Gpregs: &core_x86.UserX86RegsEntry{
			R15: u(r.R15), R14: u(r.R14), R13: u(r.R13), R12: u(r.R12), Bp: u(r.Rbp), Bx: u(r.Rbx),
			R11: u(r.R11), R10: u(r.R10), R9: u(r.R9), R8: u(r.R8), Ax: u(r.Rax), Cx: u(r.Rcx), Dx: u(r.Rdx),
			Si: u(r.Rsi), Di: u(r.Rdi), OrigAx: u(r.Orig_rax), Ip: u(r.Rip), Cs: u(r.Cs), Flags: u(r.Eflags),
			Sp: u(r.Rsp), Ss: u(r.Ss), FsBase: u(r.Fs_base), GsBase: u(r.Gs_base),
			Ds: u(r.Ds), Es: u(r.Es), Fs: u(r.Fs), Gs: u(r.Gs),
			Mode: core_x86.UserX86RegsMode_NATIVE.Enum(),
		},
	}
}

// debugRegs are where struct user has the debug registers (u_debugreg,
// arch/x86/include/asm/user_64.h): the addresses, the status, the control.
var debugRegs = [...]int{0, 1, 2, 3, 6, 7}

const debugRegsAt = 848 // offsetof(struct user, u_debugreg)

// debugRegisters reads a traced thread's breakpoints of the processor; nil when
// none is in use.
func debugRegisters(x tracee.Traced) ([]uint64, error) {
	control, err := x.User(debugRegsAt + 8*7)
	if err != nil {
		return nil, err
	}
	status, err := x.User(debugRegsAt + 8*6)
	if err != nil || control == 0 && status == 0 {
		return nil, err
	}
	var all []uint64
	for _, i := range debugRegs {
		v, err := x.User(debugRegsAt + 8*uint64(i))
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// SetDebugRegisters gives a traced thread what debugRegisters has read.
func SetDebugRegisters(x tracee.Traced, all []uint64) error {
	for i, v := range all {
		if v == 0 || i >= len(debugRegs) {
			continue
		}
		if err := x.SetUser(debugRegsAt+8*uint64(debugRegs[i]), v); err != nil {
			return err
		}
	}
	return nil
}

// beforeCall tells whether a thread that stands at the entry of a system call has
// come there by a `syscall` that lies in its text, so that it can issue it again.
func beforeCall(pid int, r *sys.Regs) bool {
	var b [2]byte
	return sys.ReadMem(pid, r.Rip-2, b[:]) == nil && b == [2]byte{0x0f, 0x05}
}

// askArch refuses what only this machine has: a local descriptor table
// (modify_ldt(2)), whose selectors may be in registers.
func (c *Collector) askArch(t *Task, b *batch) {
	at, _ := b.e.Data(8)
	b.ask("modify_ldt", true, func(n int64) {
		if n > 0 {
			c.refuse(t, "address space", "it has segments of its own (modify_ldt)", "only programs without them can be saved")
		}
	}, unix.SYS_MODIFY_LDT, 0, at, 8)
}
