// Package job is what a parent in the foreground needs of the kernel: waiting
// for children that stop and go on, and passing a terminal's foreground to
// their process group and back (credentials(7), setpgid(2), tcsetpgrp(3)).
package job

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Child is a child process, held by a pidfd so that no signal can reach another
// process that gets its pid later (pidfd_open(2), Linux 5.3).
type Child struct {
	PID int
	fd  int
}

// Hold takes hold of a child that was not waited for yet.
func Hold(pid int) (*Child, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("hold pid %d: %w", pid, err)
	}
	return &Child{pid, fd}, nil
}

// Close lets the child go; it lives on.
func (c *Child) Close() error { return unix.Close(c.fd) }

// Send sends a signal to the child; if it is gone, that is no error.
func (c *Child) Send(s unix.Signal) error {
	if err := unix.PidfdSendSignal(c.fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %d to pid %d: %w", s, c.PID, err)
	}
	return nil
}

// Change is what wait4(2) reports of a child.
type Change struct {
	PID    int
	status unix.WaitStatus
	Err    error // the child cannot be waited for; it counts as ended
}

// Wait waits for the next change: the child's end, its stop by a signal or its
// going on. It takes children of any exit signal.
func (c *Child) Wait() Change {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(c.PID, &ws, unix.WUNTRACED|unix.WCONTINUED|unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			err = fmt.Errorf("wait for pid %d: %w", c.PID, err)
		}
		return Change{c.PID, ws, err}
	}
}

// Ended reports whether the child is gone.
func (c Change) Ended() bool { return c.Err != nil || c.status.Exited() || c.status.Signaled() }

// Signal is the signal that ended the child, 0 when none did.
func (c Change) Signal() unix.Signal {
	if c.Err == nil && c.status.Signaled() {
		return c.status.Signal()
	}
	return 0
}

// Stopped gives the signal that stopped the child, 0 when it did not stop.
func (c Change) Stopped() unix.Signal {
	if c.Err == nil && c.status.Stopped() {
		return c.status.StopSignal()
	}
	return 0
}

// Code is an ended child's status as shells tell it: its own exit status, or
// 128 plus the number of the signal that ended it; 1 with Err.
func (c Change) Code() int {
	if c.Err != nil {
		return 1
	}
	if s := c.Signal(); s != 0 {
		return 128 + int(s)
	}
	return c.status.ExitStatus()
}

// Group gives the process group of a process; 0 means the caller.
func Group(pid int) (int, error) {
	g, err := unix.Getpgid(pid)
	if err != nil {
		return 0, fmt.Errorf("process group of pid %d: %w", pid, err)
	}
	return g, nil
}

// SameSession reports whether a process is in the caller's session.
func SameSession(pid int) bool {
	own, err1 := unix.Getsid(0)
	its, err2 := unix.Getsid(pid)
	return err1 == nil && err2 == nil && own == its
}

// SendGroup sends a signal to a process group, 0 for the caller's; that it is
// gone is no error.
func SendGroup(group int, s unix.Signal) error {
	if err := unix.Kill(-group, s); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %d to process group %d: %w", s, group, err)
	}
	return nil
}

// Terminal is the controlling terminal of the process.
type Terminal struct {
	f     *os.File
	modes *unix.Termios
}

// OpenTerminal opens the controlling terminal and remembers its modes. It gives
// nil where there is none.
func OpenTerminal() *Terminal {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	t := &Terminal{f: f}
	if m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
		t.modes = m
	}
	return t
}

// Close gives the terminal's descriptor back.
func (t *Terminal) Close() error { return t.f.Close() }

// Foreground gives the terminal's foreground process group.
func (t *Terminal) Foreground() (int, error) {
	g, err := unix.IoctlGetInt(int(t.f.Fd()), unix.TIOCGPGRP)
	if err != nil {
		return 0, fmt.Errorf("foreground group of the terminal: %w", err)
	}
	return g, nil
}

// SetForeground makes a process group of this session the foreground one. The
// caller may be in the background.
func (t *Terminal) SetForeground(group int) error {
	return t.fromBackground(func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, group); err != nil {
			return fmt.Errorf("foreground group of the terminal to %d: %w", group, err)
		}
		return nil
	})
}

// ResetModes puts the terminal into the modes it had when it was opened.
func (t *Terminal) ResetModes() error {
	if t.modes == nil {
		return nil
	}
	return t.fromBackground(func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETSW, t.modes) })
}

// fromBackground makes a call that changes the terminal. The kernel answers one
// from the background with SIGTTOU unless the calling thread blocks it, so a
// thread that does is taken for it.
func (t *Terminal) fromBackground(call func(fd int) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var block, old unix.Sigset_t
	block.Val[0] = 1 << (unix.SIGTTOU - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &block, &old); err != nil {
		return fmt.Errorf("block SIGTTOU: %w", err)
	}
	defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	return call(int(t.f.Fd()))
}
