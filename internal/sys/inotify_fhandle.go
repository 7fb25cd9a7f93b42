package sys

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Handle is a file handle (name_to_handle_at(2)).
type Handle struct {
	Type int32
	Data []byte
}

// OpenHandles opens files of a mounted file system by their handles, for their
// path only (O_PATH), without an event for anyone who watches: the directory
// mount is not opened but gone into, by a thread with a working directory of
// its own. Each descriptor is the caller's; where one could not be opened it is
// -1 and the error is set. Needs CAP_DAC_READ_SEARCH.
func OpenHandles(mount string, hs []Handle) (fds []int, errs []error) {
	fds, errs = make([]int, len(hs)), make([]error, len(hs))
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with the goroutine, and its working
		// directory with it.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(mount)
		}
		for i, h := range hs {
			if fds[i], errs[i] = -1, err; err == nil {
				fds[i], errs[i] = unix.OpenByHandleAt(unix.AT_FDCWD, unix.NewFileHandle(h.Type, h.Data), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
			}
		}
	}()
	<-done
	return fds, errs
}
