package job

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's struct sigaction on 64-bit machines
// (include/linux/signal_types.h with SA_RESTORER).
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// Suspend stops the caller, or with group its whole process group, as SIGTSTP
// does by default, and returns when somebody continued it. It returns at once
// where the kernel does not stop anything: in a group that nobody could
// continue (an orphaned one, setpgid(2)).
//
// The Go runtime does not give up the handler of a signal that was once asked
// for, so the kernel's default is put in its place here for the time being.
//
// Sound: both structures are live across the calls and the kernel alone reads
// or writes them; the one put back is byte for byte what was there.
func Suspend(group bool) error {
	const ignore = 1 // SIG_IGN
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop, old := sigaction{handler: ignore}, sigaction{}
	if err := setSigaction(unix.SIGTSTP, &stop, &old); err != nil {
		return err
	}
	defer setSigaction(unix.SIGTSTP, &old, nil)
	if group {
		// The others; ours is dropped.
		if err := unix.Kill(0, unix.SIGTSTP); err != nil {
			return fmt.Errorf("stop the process group: %w", err)
		}
	}
	stop.handler = 0 // SIG_DFL
	if err := setSigaction(unix.SIGTSTP, &stop, nil); err != nil {
		return err
	}
	// To this very thread: it is stopped, and all with it, before the call
	// returns. One sent to the process could be taken by another thread later.
	if err := unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGTSTP); err != nil {
		return fmt.Errorf("stop oneself: %w", err)
	}
	return nil
}

func setSigaction(sig unix.Signal, act, old *sigaction) error {
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), unsafe.Sizeof(act.mask), 0, 0)
	if e != 0 {
		return fmt.Errorf("disposition of signal %d: %w", sig, e)
	}
	return nil
}
