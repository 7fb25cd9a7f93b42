package main

import (
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys/job"
)

// foreground is the parent of a restored program: what a shell is to a job.
//
// The terminal's foreground goes to the program's process group when that is
// another than fermata's, of the same session, and fermata has it; it comes
// back when the program stops or ends. Signals sent to fermata are sent on to
// the program. When the program stops, fermata stops too, so that the shell
// takes over; fg or bg in the shell continues fermata, and it the program.
type foreground struct {
	roots []*job.Child // the first is the one whose status counts
	live  int
	code  int // of the first root
	err   error

	tty   *job.Terminal // nil without one
	own   int           // process group of fermata
	group int           // process group of the first root
	lent  bool          // the terminal's foreground is the program's
}

// newForeground takes the children over.
func newForeground(roots []int, tty *job.Terminal) (*foreground, error) {
	f := &foreground{tty: tty}
	var err error
	if f.own, err = job.Group(0); err != nil {
		return nil, err
	}
	for i, pid := range roots {
		child, err := job.Hold(pid)
		if err != nil {
			f.close()
			return nil, err
		}
		f.roots = append(f.roots, child)
		if i > 0 {
			continue
		}
		// A program that has ended already is in no group that matters.
		f.group, _ = job.Group(pid)
		if !job.SameSession(pid) {
			f.tty = nil // it has a terminal of its own, or none
		}
	}
	f.live = len(f.roots)
	f.lend()
	if f.tty != nil && f.group > 0 && f.inForeground() {
		// It is another window than the one it knew, and an empty one.
		job.SendGroup(f.group, unix.SIGWINCH)
	}
	return f, nil
}

// close lets the children go.
func (f *foreground) close() {
	for _, r := range f.roots {
		r.Close()
	}
}

// lend makes the program's group the foreground one, if fermata's is.
func (f *foreground) lend() {
	if f.tty == nil || f.group <= 0 || f.group == f.own {
		return
	}
	if g, err := f.tty.Foreground(); err == nil && g == f.own {
		f.lent = f.tty.SetForeground(f.group) == nil
	}
}

// take takes the foreground back, unless the terminal has meanwhile gone to
// somebody else.
func (f *foreground) take() {
	if !f.lent {
		return
	}
	f.lent = false
	if g, err := f.tty.Foreground(); err == nil && g == f.group {
		f.tty.SetForeground(f.own)
	}
}

// run waits until every root has ended and gives the exit code of the first.
func (f *foreground) run(sigs <-chan os.Signal) (code int, err error) {
	defer f.close()
	changes := make(chan job.Change)
	for _, r := range f.roots {
		go func() {
			for {
				c := r.Wait()
				changes <- c
				if c.Ended() {
					return
				}
			}
		}()
	}
	for f.live > 0 {
		select {
		case c := <-changes:
			f.changed(c)
		case s := <-sigs:
			f.signal(s)
		}
	}
	f.take()
	return f.code, f.err
}

// changed deals with a child's end or stop.
func (f *foreground) changed(c job.Change) {
	first := c.PID == f.roots[0].PID
	if c.Ended() {
		f.live--
		if f.err == nil {
			f.err = c.Err
		}
		if first {
			f.code = c.Code()
			if c.Signal() != 0 && f.tty != nil && f.inForeground() {
				// It had no chance to put the terminal's modes back.
				f.tty.ResetModes()
			}
		}
		return
	}
	stop := c.Stopped()
	if stop == 0 || !first {
		return
	}
	if (stop == unix.SIGTTIN || stop == unix.SIGTTOU) && f.lent {
		// It asked for the terminal in the instant before it had it.
		job.SendGroup(f.group, unix.SIGCONT)
		return
	}
	f.take()
	// Whoever waits for fermata must stop as well: the whole group, unless the
	// program shares it and the others have had their signal. This returns when
	// fermata is continued, which the signal SIGCONT tells.
	job.Suspend(f.group != f.own)
}

// inForeground reports whether the terminal is the program's or fermata's.
func (f *foreground) inForeground() bool {
	g, err := f.tty.Foreground()
	return err == nil && (g == f.own || g == f.group)
}

// fromTerminal are the signals that the terminal sends to its whole foreground
// group.
var fromTerminal = []os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGWINCH}

// signal sends one of fermata's signals on to the program.
func (f *foreground) signal(s os.Signal) {
	sig := s.(syscall.Signal)
	switch {
	case sig == syscall.SIGTTIN || sig == syscall.SIGTTOU:
		return
	case sig == syscall.SIGCONT:
		f.lend()
		if f.group > 0 && f.group != f.own {
			job.SendGroup(f.group, sig)
			return
		}
	case slices.Contains(fromTerminal, s) && f.shareForeground():
		return // the terminal has sent it to the program as well
	}
	f.send(sig)
}

// send sends a signal to every root.
func (f *foreground) send(sig syscall.Signal) {
	for _, r := range f.roots {
		r.Send(sig)
	}
}

// shareForeground reports whether fermata and the program are both in the
// terminal's foreground group. Then a signal that fermata gets came from the
// terminal, almost surely, and must not be doubled.
func (f *foreground) shareForeground() bool {
	if f.tty == nil || f.group != f.own {
		return false
	}
	g, err := f.tty.Foreground()
	return err == nil && g == f.own
}
