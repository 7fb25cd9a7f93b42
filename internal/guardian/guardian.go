// Package guardian keeps a small process beside each checkpoint that puts right
// what a dead fermata leaves behind, and ends one that hangs.
//
// It watches a pipe whose other end only the controller holds. As long as that
// lives, the guardian is a program of some hundred bytes that costs next to
// nothing (watch_amd64.s). When the pipe ends without a word of good-bye, or the
// controller makes no progress for longer than it said it would, the guardian
// becomes fermata again (execveat of the controller's own program) and reads in
// the journal what is owed.
//
// It has no stdio, a session of its own and the root directory as its working
// directory, so that it holds nothing that others wait for. Its own death harms
// nobody: the targets are whole at any instant, only what would have been
// cleared away stays.
package guardian

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/tiny"
)

// Name is what ps shows.
const Name = "fermata-guardian"

// mark is set in the environment of a guardian only.
const mark = "FERMATA_GUARDIAN"

// The guardian's descriptors; watch_amd64.s knows them too.
const (
	fdPipe = iota
	fdProgram
	fdController
	fdJournal
)

// Guardian is the controller's side.
type Guardian struct {
	Journal *journal.Journal
	pid     int
	pipe    int // the write end
	let     bool
}

// Start starts a guardian of this process.
func Start() (*Guardian, error) {
	j, err := journal.New(os.Getpid())
	if err != nil {
		return nil, err
	}
	g := &Guardian{Journal: j, pipe: -1}
	if err := g.start(); err != nil {
		g.Journal.Close()
		return nil, fmt.Errorf("guardian: %w", err)
	}
	return g, nil
}

// small: the guardian is to be the small program first.
var small = true

// program gives descriptors of this program and of the watch, which is -1
// where there is none.
var program = sync.OnceValues(func() (fds struct{ self, watch int }, err error) {
	if fds.self, err = unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return fds, err
	}
	fds.watch = tiny.Memfd(Name, watchCode())
	return fds, nil
})

func (g *Guardian) start() error {
	fds, err := program()
	if err != nil {
		return err
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(self)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(p[0])
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{mark + "=1"},
		Files: []uintptr{fdPipe: uintptr(p[0]), fdProgram: uintptr(fds.self), fdController: uintptr(self), fdJournal: uintptr(g.Journal.FD())},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if faultpoint.Enabled {
		attr.Env = append(attr.Env, "FERMATA_FAULT="+os.Getenv("FERMATA_GUARDIAN_FAULT"))
	}
	run := func(fd int) error {
		g.pid, err = syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", fd), []string{Name}, attr)
		return err
	}
	if fds.watch < 0 || !small || run(fds.watch) != nil {
		if err := run(fds.self); err != nil {
			unix.Close(p[1])
			return err
		}
	}
	g.pipe = p[1]
	return nil
}

// PID gives the guardian's pid.
func (g *Guardian) PID() int {
	if g == nil {
		return 0
	}
	return g.pid
}

// Close dismisses the guardian and waits for it. If the journal says that
// something is still owed, it stays and sees to that, and Close does not wait.
func (g *Guardian) Close() {
	g.dismiss()
	if g == nil || g.pipe < 0 {
		return
	}
	unix.Close(g.pipe)
	g.pipe = -1
	g.Journal.Close()
	if !g.let {
		go g.reap()
		return
	}
	g.reap()
}

// dismiss says good-bye to the guardian when nothing is owed.
func (g *Guardian) dismiss() {
	if g == nil || g.pipe < 0 || g.let || g.Journal.Owing() {
		return
	}
	_, _ = unix.Write(g.pipe, []byte{1})
	g.let = true
}

// reap takes the guardian's end, so that no zombie is left. Somebody else in
// this process may have taken it before.
func (g *Guardian) reap() {
	for {
		if _, err := unix.Wait4(g.pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// A guardian is this program under another name: whatever program uses the
// package, it never gets as far as its main.
func init() {
	if len(os.Args) != 1 || os.Args[0] != Name || os.Getenv(mark) != "1" || privileged() {
		return
	}
	guard()
	os.Exit(0)
}

// privileged tells whether this process has rights that its caller has not
// (AT_SECURE, getauxval(3)): then it obeys no stranger's journal.
func privileged() bool {
	const atSecure = 23
	aux, err := unix.Auxv()
	if err != nil {
		return true
	}
	for _, a := range aux {
		if a[0] == atSecure {
			return a[1] != 0
		}
	}
	return true
}

// guard waits for the controller's end and puts right what it owes.
func guard() {
	_ = os.WriteFile("/proc/self/comm", []byte(Name), 0)
	if !await() {
		return
	}
	unix.Close(fdPipe)
	book, err := journal.Read(fdJournal)
	if err != nil {
		return
	}
	(&cleaner{book: book, end: time.Now().Add(longest)}).run()
}

// await watches the pipe, as the watch does; false means that the controller
// has ended well.
func await() bool {
	for {
		beat, patience, err := journal.Pulse(fdJournal)
		if err != nil {
			return false
		}
		ms := int(patience.Milliseconds())
		if ms == 0 {
			ms = 1000
		}
		p := []unix.PollFd{{Fd: fdPipe, Events: unix.POLLIN}}
		n, err := unix.Poll(p, ms)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return false
		case n == 0 && patience == 0:
			continue
		case n == 0:
			if now, _, err := journal.Pulse(fdJournal); err != nil || now != beat {
				continue
			}
			_ = unix.PidfdSendSignal(fdController, unix.SIGKILL, nil, 0)
		}
		var b [1]byte
		for {
			n, err := unix.Read(fdPipe, b[:])
			if err == unix.EINTR {
				continue
			}
			return err != nil || n == 0
		}
	}
}
