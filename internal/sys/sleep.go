package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// Nap makes the calling OS thread sleep for a short time. time.Sleep waits in
// the runtime's network poller, whose timeout is in whole milliseconds: it
// takes a millisecond at least when the process has nothing else to do.
func Nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil)
}
