package tracee

import (
	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// Some system calls answer any interruption with EINTR, a mere stop too
// (signal(7), "Interruption of system calls and library functions by stop
// signals"; sockets with a timeout, sock_intr_errno in include/net/sock.h). A
// program that runs alone never sees that error, so the call is issued again.
// connect(2) is not among them: a second one would find the first under way.
var deafCalls = map[uint64]bool{
	unix.SYS_EPOLL_WAIT: true, unix.SYS_EPOLL_PWAIT: true, unix.SYS_EPOLL_PWAIT2: true,
	unix.SYS_RT_SIGTIMEDWAIT: true, unix.SYS_SEMOP: true, unix.SYS_SEMTIMEDOP: true,
	unix.SYS_IO_GETEVENTS: true, unix.SYS_IO_PGETEVENTS: true,
	unix.SYS_READ: true, unix.SYS_READV: true, unix.SYS_RECVFROM: true, unix.SYS_RECVMSG: true, unix.SYS_RECVMMSG: true,
	unix.SYS_WRITE: true, unix.SYS_WRITEV: true, unix.SYS_SENDTO: true, unix.SYS_SENDMSG: true, unix.SYS_SENDMMSG: true,
	unix.SYS_ACCEPT: true, unix.SYS_ACCEPT4: true,
	unix.SYS_MSGRCV: true, unix.SYS_MSGSND: true, unix.SYS_MQ_TIMEDRECEIVE: true, unix.SYS_MQ_TIMEDSEND: true,
	unix.SYS_IO_URING_ENTER: true,
}

// unplaced tells whether a thread has no place in its program, as io_uring's.
func unplaced(r *sys.Regs) bool { return r.Rip == 0 && r.Rsp == 0 }

// deaf tells whether a stopped thread was in such a call.
func deaf(r *sys.Regs) bool {
	return int64(r.Orig_rax) >= 0 && int64(r.Rax) == -int64(unix.EINTR) && deafCalls[r.Orig_rax]
}

// again gives the registers that issue the call once more.
func again(r sys.Regs) sys.Regs {
	r.Rax = r.Orig_rax
	r.Rip -= syscallInstrSize
	r.Orig_rax = ^uint64(0)
	return r
}

// BrokenOff tells whether a thread stands behind a system call that a stop has
// ended, and that the kernel or a program that runs alone would go on with.
func BrokenOff(r *sys.Regs) bool {
	if int64(r.Orig_rax) < 0 {
		return false
	}
	switch int64(r.Rax) {
	case errRestartSys, errRestartNoIntr, errRestartNoHand, errRestartBlock:
		return true
	}
	return deaf(r)
}

// Reissued gives registers with which such a thread goes on with its call, from
// user mode: a timed one through its restart block.
func Reissued(r sys.Regs) sys.Regs {
	if RestartBlock(&r) {
		r.Orig_rax = nrRestartSyscall
	}
	return again(r)
}

// IssuedAgain gives the registers of a thread whose call a stop has broken off
// with EINTR as they are when it issues it once more; others as they are.
func IssuedAgain(r sys.Regs) sys.Regs {
	if deaf(&r) {
		return again(r)
	}
	return r
}
