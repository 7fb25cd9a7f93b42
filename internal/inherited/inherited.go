// Package inherited keeps what a process was started with from its children.
//
// A program that is to be saved must be as its user starts it. Tests and
// benchmarks are started from editors, build systems and shells that leave
// descriptors open (a pipe whose other end is outside is refused) and signals
// ignored (nohup), and both go through every fork and execve.
package inherited

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Drop makes every descriptor above 2 close-on-exec, and gives children the
// default action of the signals that this process was started with as ignored.
// It is for the start of a process: descriptors that are to be inherited are
// passed on by number afterwards.
func Drop() error {
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	// A caught signal becomes the default action at execve (signal(7)); an
	// ignored one stays ignored.
	for s := syscall.Signal(1); s <= 64; s++ {
		if signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	return nil
}
