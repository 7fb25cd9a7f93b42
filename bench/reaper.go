package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaper is the parent of everything that is measured, like the first process
// of a system: what a tool restores, and the orphans of what it kills, become
// its children and are reaped at once. Otherwise pids would stay taken, and the
// time until some other process notices would be measured.
type reaper struct {
	mu      sync.Mutex
	started *sync.Cond
	waiting map[int]chan syscall.WaitStatus
	alive   int // processes started here that have not ended
}

// process is a child that somebody may wait for.
type process struct {
	pid   int
	ended <-chan syscall.WaitStatus
}

func newReaper() (*reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("child subreaper: %w", err)
	}
	r := &reaper{waiting: map[int]chan syscall.WaitStatus{}}
	r.started = sync.NewCond(&r.mu)
	go r.reap()
	return r, nil
}

// start starts a process; in a session of its own when it is a target.
func (r *reaper) start(argv []string, dir string, files []*os.File, session bool) (*process, error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
	}
	// Held while it starts, so that it cannot be reaped before it is known.
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(argv[0], argv, &syscall.ProcAttr{
		Dir: dir, Env: os.Environ(), Files: fds, Sys: &syscall.SysProcAttr{Setsid: session},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", argv[0], err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	r.waiting[pid] = ended
	r.alive++
	r.started.Signal()
	return &process{pid, ended}, nil
}

// reap reaps for ever. Without a child it sleeps until one is started: others
// only come while one of those is there.
func (r *reaper) reap() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		r.mu.Lock()
		switch c := r.waiting[pid]; {
		case err == nil && c != nil:
			c <- ws
			delete(r.waiting, pid)
			r.alive--
		case err == syscall.ECHILD:
			for r.alive == 0 {
				r.started.Wait()
			}
		}
		r.mu.Unlock()
	}
}

// run runs a command line to its end: how long that took, and what it said.
func (r *reaper) run(argv []string, dir string) (took time.Duration, said string, err error) {
	out, err := os.CreateTemp("", "fermata-bench.")
	if err != nil {
		return 0, "", err
	}
	defer out.Close()
	if err := os.Remove(out.Name()); err != nil {
		return 0, "", err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, "", err
	}
	defer null.Close()
	began := time.Now()
	p, err := r.start(argv, dir, []*os.File{null, out, out}, false)
	if err != nil {
		return 0, "", err
	}
	ws := <-p.ended
	took = time.Since(began)
	text, err := io.ReadAll(io.NewSectionReader(out, 0, 1<<20))
	if err == nil && (!ws.Exited() || ws.ExitStatus() != 0) {
		err = fmt.Errorf("it ended with status %#x", int(ws))
	}
	return took, string(text), err
}

// prepare runs, in this directory, a command that nobody measures.
func (r *reaper) prepare(argv ...string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	argv[0] = path
	if _, said, err := r.run(argv, ""); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, said)
	}
	return nil
}
