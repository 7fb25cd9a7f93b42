package sys

import (
	"math"

	"golang.org/x/sys/unix"
)

// smallTable is how many descriptors a process's table has room for at first
// (NR_OPEN_DEFAULT, include/linux/fdtable.h).
const smallTable = 64

// ReserveFDs makes room for n more descriptors in this process's table, in the
// background; wait, which must be called, waits until it is there. A table grows
// by doubling, and where several threads have it, each time the kernel waits for
// all processors to have passed through the scheduler (fs/file.c, expand_fdtable:
// synchronize_rcu): some ten milliseconds, for everybody who opens a file.
// Without the room everything works as well.
func ReserveFDs(n int) (wait func()) {
	if n < smallTable/2 {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var l unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
			n = int(min(uint64(n)+smallTable, l.Cur-1, math.MaxInt32))
		}
		fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		if high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, n); err == nil {
			unix.Close(high)
		}
		unix.Close(fd)
	}()
	return func() { <-done }
}
