package sys

import (
	"golang.org/x/sys/unix"
)

// Requests of ptrace(2), from include/uapi/linux/ptrace.h; those that x/sys
// names are repeated so that the set reads whole. All need the calling OS
// thread to be the tracer.
const (
	PtracePeekUser   = 3
	PtracePokeUser   = 6
	PtraceCont       = 7
	PtraceGetRegs    = 12
	PtraceSetRegs    = 13
	PtraceSyscall    = 24
	ptraceDetach     = 17
	PtraceSetOptions = 0x4200
	PtraceGetEvent   = 0x4201
	PtraceGetSiginfo = 0x4202
	PtraceGetRegset  = 0x4204 // 2.6.34
	ptraceSetRegset  = 0x4205
	PtraceSeize      = 0x4206 // 3.4
	PtraceInterrupt  = 0x4207 // 3.4
	ptraceListen     = 0x4208 // 3.4
	PtracePeekSig    = 0x4209 // 3.10
	PtraceGetSigmask = 0x420a // 3.11
	PtraceSetSigmask = 0x420b // 3.11
	ptraceSysInfo    = 0x420e // 5.3
	PtraceGetRseq    = 0x420f // 5.13
	PtraceGetSud     = 0x4211 // 6.4
)

// Options of PTRACE_SEIZE and PTRACE_SETOPTIONS.
const (
	OptTraceSysgood    = 1
	OptTraceClone      = 1 << 3
	OptExitKill        = 1 << 20 // 3.8: SIGKILL to the tracee when the tracer dies
	OptSuspendSeccomp  = 1 << 21 // 4.3; needs CAP_SYS_ADMIN in the initial namespace
	EventStop          = 128     // PTRACE_EVENT_STOP
	peekSigInfoShared  = 1       // PTRACE_PEEKSIGINFO_SHARED
	NoteXstate         = 0x202   // NT_X86_XSTATE
	notePrstatus       = 1       // NT_PRSTATUS
	siginfoSize        = 128     // sizeof(siginfo_t)
	RseqSize           = 24      // sizeof(struct ptrace_rseq_configuration)
	peekBatch          = 32
	maxSignalQueueRead = 1 << 20
)

func ptrace(req, tid int, addr, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// Seize makes the calling OS thread the tracer of tid without stopping it
// (PTRACE_SEIZE, Linux 3.4). opts are Opt… bits.
func Seize(tid int, opts uintptr) error { return ptrace(PtraceSeize, tid, 0, opts) }

// SetOptions replaces the trace options of a stopped tracee.
func SetOptions(tid int, opts uintptr) error { return ptrace(PtraceSetOptions, tid, 0, opts) }

// Interrupt asks a seized tracee to stop; the stop is reported to Wait.
func Interrupt(tid int) error { return ptrace(PtraceInterrupt, tid, 0, 0) }

// Cont lets a stopped tracee run on, delivering signal sig if it is not 0.
func Cont(tid, sig int) error { return ptrace(PtraceCont, tid, 0, uintptr(sig)) }

// ContSyscall is Cont until the next entry to or exit from a system call.
func ContSyscall(tid int) error { return ptrace(PtraceSyscall, tid, 0, 0) }

// Listen puts a tracee in group-stop back into it, so that SIGCONT still works.
func Listen(tid int) error { return ptrace(ptraceListen, tid, 0, 0) }

// Detach lets a stopped tracee go, delivering sig if it is not 0.
func Detach(tid, sig int) error { return ptrace(ptraceDetach, tid, 0, uintptr(sig)) }

// Wait waits for a state change of one tracee with a raw wait4(__WALL): the
// status is as wait(2) describes. The raw call keeps the Go scheduler out of
// the way: use it where the wait is short (under about 100 µs).
func Wait(tid int) (unix.WaitStatus, error) { return wait(tid, unix.WALL, false) }

// WaitSched is Wait for longer waits: it lets the Go scheduler hand the
// processor to another goroutine meanwhile.
func WaitSched(tid int) (unix.WaitStatus, error) { return wait(tid, unix.WALL, true) }

// Poll is Wait that does not wait: ok tells whether there was a state change.
func Poll(tid int) (st unix.WaitStatus, ok bool, err error) {
	pid, st, err := wait4(tid, unix.WALL|unix.WNOHANG, false)
	return st, pid != 0 && err == nil, err
}

func wait(tid, opts int, sched bool) (unix.WaitStatus, error) {
	_, st, err := wait4(tid, opts, sched)
	return st, err
}

// IsEventStop tells whether a wait status is a PTRACE_EVENT_STOP: the answer to
// Interrupt, a group-stop, or the first stop of an automatically traced task.
// The stop signal is SIGTRAP unless the task is in group-stop.
func IsEventStop(st unix.WaitStatus) bool { return uint32(st)>>16 == EventStop }

// IsSyscallStop tells whether a wait status is a syscall-stop under
// OptTraceSysgood.
func IsSyscallStop(st unix.WaitStatus) bool { return uint32(st)>>8 == uint32(unix.SIGTRAP)|0x80 }

// Kinds of syscall-stop (PTRACE_GET_SYSCALL_INFO).
const (
	SyscallNone  = 0
	SyscallEntry = 1
	SyscallExit  = 2
)

// RseqConfiguration is struct ptrace_rseq_configuration (Linux 5.13).
type RseqConfiguration struct {
	Pointer   uint64
	Size      uint32
	Signature uint32
	Flags     uint32
	_         uint32
}

// Siginfo is the raw siginfo_t of a signal, 128 bytes.
type Siginfo [siginfoSize]byte

// Signo gives si_signo.
func (s *Siginfo) Signo() int { return int(int32(nativeEndian.Uint32(s[0:]))) }

// Code gives si_code.
func (s *Siginfo) Code() int { return int(int32(nativeEndian.Uint32(s[8:]))) }
