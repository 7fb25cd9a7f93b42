package sys

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ksigaction is what rt_sigaction(2) takes (struct kernel_sigaction,
// include/linux/signal_types.h), with room for architectures without a restorer.
type ksigaction struct {
	handler, flags, restorer, mask uint64
}

// SA_NOCLDSTOP, include/uapi/asm-generic/signal-defs.h.
const saNoCldStop = 1

var quiet struct {
	sync.Mutex
	users int
	set   bool
}

// QuietStops keeps the stops of tracees from being told by SIGCHLD to this
// process until the function that it gives is called: a tracer waits for them
// anyway, and each signal costs it a detour through the runtime's handler
// (do_notify_parent_cldstop in kernel/signal.c sends none with SA_NOCLDSTOP, and
// wakes who waits all the same). That children have ended is still told.
func QuietStops() (loud func()) {
	quiet.Lock()
	defer quiet.Unlock()
	if quiet.users++; quiet.users == 1 {
		quiet.set = changeChld(func(f uint64) uint64 { return f | saNoCldStop })
	}
	return sync.OnceFunc(func() {
		quiet.Lock()
		defer quiet.Unlock()
		if quiet.users--; quiet.users == 0 && quiet.set {
			changeChld(func(f uint64) uint64 { return f &^ saNoCldStop })
		}
	})
}

// changeChld changes the flags of SIGCHLD's action; it tells whether it did.
func changeChld(to func(uint64) uint64) bool {
	var sa ksigaction
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(&sa)), 8, 0, 0); e != 0 {
		return false
	}
	flags := to(sa.flags)
	if flags == sa.flags {
		return false
	}
	sa.flags = flags
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&sa)), 0, 8, 0, 0)
	return e == 0
}
