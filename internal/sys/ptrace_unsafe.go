package sys

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Every pointer below is to a Go variable that lives until the call returns:
// ptrace copies in or out before it does.

var nativeEndian = binary.NativeEndian

func wait4(tid, opts int, sched bool) (int, unix.WaitStatus, error) {
	var st unix.WaitStatus
	for {
		var r uintptr
		var e unix.Errno
		if sched {
			r, _, e = unix.Syscall6(unix.SYS_WAIT4, uintptr(tid), uintptr(unsafe.Pointer(&st)), uintptr(opts), 0, 0, 0)
		} else {
			r, _, e = unix.RawSyscall6(unix.SYS_WAIT4, uintptr(tid), uintptr(unsafe.Pointer(&st)), uintptr(opts), 0, 0, 0)
		}
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return 0, 0, e
		}
		return int(r), st, nil
	}
}

// GetSigmask reads a stopped tracee's blocked signals (PTRACE_GETSIGMASK, 3.11).
func GetSigmask(tid int) (mask uint64, err error) {
	err = ptrace(PtraceGetSigmask, tid, 8, uintptr(unsafe.Pointer(&mask)))
	return mask, err
}

// SetSigmask replaces a stopped tracee's blocked signals.
func SetSigmask(tid int, mask uint64) error {
	return ptrace(PtraceSetSigmask, tid, 8, uintptr(unsafe.Pointer(&mask)))
}

// GetEventMessage reads PTRACE_GETEVENTMSG.
func GetEventMessage(tid int) (msg uint64, err error) {
	err = ptrace(PtraceGetEvent, tid, 0, uintptr(unsafe.Pointer(&msg)))
	return msg, err
}

// GetSiginfo reads the signal a tracee in signal-delivery-stop is about to get;
// in a group-stop it fails with EINVAL.
func GetSiginfo(tid int) (si Siginfo, err error) {
	err = ptrace(PtraceGetSiginfo, tid, 0, uintptr(unsafe.Pointer(&si)))
	return si, err
}

// GetRseq reads a stopped tracee's rseq registration
// (PTRACE_GET_RSEQ_CONFIGURATION, 5.13). Pointer is 0 when there is none.
func GetRseq(tid int) (c RseqConfiguration, err error) {
	err = ptrace(PtraceGetRseq, tid, unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c)))
	return c, err
}

// UserDispatch tells whether a stopped tracee has its system calls dispatched to
// a handler of its own (PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, Linux 6.4;
// false on older kernels).
func UserDispatch(tid int) bool {
	var c [4]uint64 // struct ptrace_sud_config: mode, selector, offset, len
	return ptrace(PtraceGetSud, tid, unsafe.Sizeof(c), uintptr(unsafe.Pointer(&c))) == nil && c[0] != 0
}

// SyscallStop tells whether a tracee in syscall-stop enters or leaves its call
// (PTRACE_GET_SYSCALL_INFO, Linux 5.3).
func SyscallStop(tid int) (kind int, err error) {
	var info [88]byte
	err = ptrace(ptraceSysInfo, tid, uintptr(len(info)), uintptr(unsafe.Pointer(&info)))
	return int(info[0]), err
}

type peekArgs struct {
	off   uint64
	flags uint32
	nr    int32
}

// PeekSignals reads the queued signals of a stopped tracee without taking them
// (PTRACE_PEEKSIGINFO, 3.10): its own when shared is false, its process's else.
func PeekSignals(tid int, shared bool) ([]Siginfo, error) {
	a := peekArgs{nr: peekBatch}
	if shared {
		a.flags = peekSigInfoShared
	}
	var out []Siginfo
	var buf [peekBatch]Siginfo
	for len(out) < maxSignalQueueRead {
		n, _, e := unix.RawSyscall6(unix.SYS_PTRACE, PtracePeekSig, uintptr(tid), uintptr(unsafe.Pointer(&a)), uintptr(unsafe.Pointer(&buf)), 0, 0)
		if e != 0 {
			return out, e
		}
		// Fewer than asked for are no sign of the end: the kernel also stops
		// when this thread has a signal (kernel/ptrace.c, ptrace_peek_siginfo).
		if n == 0 {
			break
		}
		out = append(out, buf[:n]...)
		a.off += uint64(n)
	}
	return out, nil
}

// GetXstate reads a stopped tracee's extended register state
// (NT_X86_XSTATE) into buf and gives the part that was filled.
func GetXstate(tid int, buf []byte) ([]byte, error) {
	iov := unix.Iovec{Base: &buf[0], Len: uint64(len(buf))}
	if err := ptrace(PtraceGetRegset, tid, NoteXstate, uintptr(unsafe.Pointer(&iov))); err != nil {
		return nil, err
	}
	return buf[:iov.Len], nil
}

// SetXstate writes a stopped tracee's extended register state.
func SetXstate(tid int, buf []byte) error {
	iov := unix.Iovec{Base: &buf[0], Len: uint64(len(buf))}
	return ptrace(ptraceSetRegset, tid, NoteXstate, uintptr(unsafe.Pointer(&iov)))
}
