package sys

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PidfdThread makes pidfd_open(2) refer to a thread (PIDFD_THREAD, O_EXCL,
// include/uapi/linux/pidfd.h, Linux 6.9).
const PidfdThread = unix.O_EXCL

const pidfdInfoExit = 1 << 3 // PIDFD_INFO_EXIT

// PidfdExitStatus gives, as wait(2) would, how the process behind a pidfd ended
// that has been reaped (PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15). ok is
// false where the kernel does not know or tell.
func PidfdExitStatus(fd int) (status uint32, ok bool) {
	i := unix.PidfdInfo{Mask: pidfdInfoExit}
	if err := unix.IoctlPidfdInfo(fd, &i); err != nil || i.Mask&pidfdInfoExit == 0 {
		return 0, false
	}
	return uint32(i.Exit_code), true
}

// cloneArgs is struct clone_args of Linux 5.3 (include/uapi/linux/sched.h).
type cloneArgs struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls uint64
}

const cloneClearSighand = 0x100000000 // CLONE_CLEAR_SIGHAND, Linux 5.5

// Ended makes a child that does nothing, calls f with its pid while it is alive,
// has it end with a status as of wait(2) (without core file), and reaps it.
func Ended(status uint32, f func(pid int) error) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(p[0])
	pid, e := idleChild(p[0], p[1], int(status>>8&0xff))
	if e != 0 {
		unix.Close(p[1])
		return fmt.Errorf("clone3: %w", e)
	}
	err := f(pid)
	if sig := syscall.Signal(status & 0x7f); sig != 0 {
		if kerr := unix.Kill(pid, sig); err == nil {
			err = kerr
		}
	}
	// A signal that does not end a process leaves it to this.
	unix.Close(p[1])
	for {
		if _, werr := unix.Wait4(pid, nil, unix.WALL, nil); werr != unix.EINTR {
			if err == nil {
				err = werr
			}
			return err
		}
	}
}

// idleChild forks a child that waits until the pipe's other end is closed, by
// the death of this process too, and then exits.
//
// Sound because the child, a copy with one thread, makes raw system calls only:
// it neither allocates nor grows its stack nor enters the scheduler, and
// CLONE_CLEAR_SIGHAND keeps the runtime's signal handlers from running in it.
//
//go:norace
//go:nosplit
//go:noinline
func idleChild(r, w, code int) (int, syscall.Errno) {
	a := cloneArgs{flags: cloneClearSighand}
	n, _, e := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&a)), unsafe.Sizeof(a), 0)
	if e != 0 || n != 0 {
		return int(n), e
	}
	var none [2]uint64
	syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_CORE, uintptr(unsafe.Pointer(&none)), 0, 0, 0)
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(w), 0, 0)
	var b byte
	for {
		n, _, _ := syscall.RawSyscall(unix.SYS_READ, uintptr(r), uintptr(unsafe.Pointer(&b)), 1)
		if n == 0 {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(code), 0, 0)
		}
	}
}
