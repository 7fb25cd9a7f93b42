// Package waits remembers when timed system calls end that fermata itself
// interrupted. Such a call goes on as restart_syscall(2) with an end that the
// kernel keeps and does not show; without a note of it, a program that sleeps an
// hour and is checkpointed every ten minutes would never wake up.
//
// The notes are small files below /run (or $XDG_RUNTIME_DIR), named by pid
// namespace, pid and start time; those of processes that are gone are removed
// now and then when one is written.
package waits

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// Wait is one thread's interrupted call.
type Wait struct {
	TID   int       `json:"tid"`
	Nr    uint64    `json:"nr"` // the call it was before it became restart_syscall
	Args  [6]uint64 `json:"args"`
	Until int64     `json:"until"` // CLOCK_MONOTONIC of this process, ns
	Noted int64     `json:"noted"` // when the thread was let go, same clock
}

// settle is how long after the note a thread may still have run on its way back
// into the call.
const settle = 100 * time.Millisecond

// Now gives the clock of the notes.
func Now() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// Holds tells whether a note is still about the call a thread sits in: the same
// arguments, and it has not run since. lastRan is by the clock of Now.
func (w *Wait) Holds(args [6]uint64, lastRan int64) bool {
	return w.Args == args && lastRan < w.Noted+int64(settle)
}

func dir() string {
	if os.Geteuid() == 0 {
		return "/run/fermata/waits"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "fermata", "waits")
	}
	return ""
}

func name(pid int) (string, error) {
	st, err := procfs.ReadStat(pid, 0)
	if err != nil {
		return "", err
	}
	ns, err := procfs.ReadNamespace(os.Getpid(), 0, "pid")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d-%d-%d", ns, pid, st.StartTime), nil
}

// Save notes the waits of a process, in place of earlier notes; none removes
// them.
func Save(pid int, w []Wait) error {
	d := dir()
	if d == "" {
		return nil
	}
	n, err := name(pid)
	if err != nil {
		return err
	}
	path := filepath.Join(d, n)
	if len(w) == 0 {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := os.MkdirAll(d, 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	// Looking through thousands of notes that others left takes a while, and not
	// every checkpoint shall pay for it.
	if rand.N(16) == 0 {
		sweep(d)
	}
	return nil
}

// Load gives the notes of a process, none when there are none.
func Load(pid int) []Wait {
	d := dir()
	if d == "" {
		return nil
	}
	n, err := name(pid)
	if err != nil {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(d, n))
	if err != nil {
		return nil
	}
	var w []Wait
	if json.Unmarshal(b, &w) != nil {
		return nil
	}
	return w
}

// sweep removes the notes of processes of this pid namespace that are gone, and
// whatever is older than a day.
func sweep(d string) {
	ns, err := procfs.ReadNamespace(os.Getpid(), 0, "pid")
	if err != nil {
		return
	}
	entries, err := os.ReadDir(d)
	if err != nil {
		return
	}
	for _, e := range entries {
		f := strings.Split(strings.TrimSuffix(e.Name(), ".new"), "-")
		if len(f) != 3 {
			continue
		}
		gone := false
		if f[0] == strconv.FormatUint(ns, 10) {
			pid, err := strconv.Atoi(f[1])
			if err != nil {
				continue
			}
			st, err := procfs.ReadStat(pid, 0)
			gone = err != nil || strconv.FormatUint(st.StartTime, 10) != f[2]
		} else if i, err := e.Info(); err == nil {
			gone = time.Since(i.ModTime()) > 24*time.Hour
		}
		if gone {
			os.Remove(filepath.Join(d, e.Name()))
		}
	}
}
