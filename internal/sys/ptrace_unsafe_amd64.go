package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Regs is struct user_regs_struct of the machine.
type Regs = unix.PtraceRegs

// GetRegs reads a stopped tracee's general registers (PTRACE_GETREGS).
func GetRegs(tid int) (r Regs, err error) {
	err = ptrace(unix.PTRACE_GETREGS, tid, 0, uintptr(unsafe.Pointer(&r)))
	return r, err
}

// SetRegs writes a stopped tracee's general registers. With Orig_rax of -1 the
// kernel does not treat the task as being in a system call, so it restarts
// nothing.
func SetRegs(tid int, r *Regs) error {
	return ptrace(unix.PTRACE_SETREGS, tid, 0, uintptr(unsafe.Pointer(r)))
}

// RegsSize is the size of Regs.
const RegsSize = int(unsafe.Sizeof(Regs{}))

// DecodeRegs reads Regs as the kernel stores them.
func DecodeRegs(b []byte) (r Regs) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r)), RegsSize), b)
	return r
}

// EncodeRegs writes them.
func EncodeRegs(r *Regs) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(r)), RegsSize)...)
}
