package fermata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/tree"
)

// Rollback sets a running tree back to its checkpoint in dir: what runs of it,
// and all its descendants, is killed, and the checkpoint restored, as Restore
// does. First the checkpoint is read as a whole: a damaged one ends nothing. What
// has ended already is just restored.
//
// Errors: those of Restore and Verify; ErrBusy when another program has a pid of
// the tree's roots, which is left alone, and when pids do not become free
// because a parent does not wait for its zombies.
func Rollback(ctx context.Context, dir string, o RestoreOptions) (*RestoreResult, error) {
	in, err := Inspect(dir)
	if err != nil {
		return nil, err
	}
	v, err := Verify(ctx, dir)
	if err != nil {
		return nil, err
	}
	for _, bad := range [][]Reason{v.Damage, v.Missing} {
		for _, r := range bad {
			kind := ErrDamaged
			if v.Whole() {
				kind = ErrRefused
			}
			return nil, fault.Errorf(kind, "%s: %s; nothing was ended", r.Object, r.Why)
		}
	}
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, p := range in.Processes {
		fd, err := unix.PidfdOpen(p.PID, 0)
		if err != nil {
			continue
		}
		fds = append(fds, fd)
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
		if err != nil && p.State != "zombie" && p.Exe != "" {
			exe = "?" // a zombie, or nobody we may look at
			if b, serr := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID)); serr == nil && strings.Contains(string(b), ") Z ") {
				exe = p.Exe
			}
		}
		if clean := func(s string) string { return strings.TrimSuffix(s, " (deleted)") }; p.Exe != "" && clean(exe) != clean(p.Exe) {
			return nil, fault.Errorf(fault.ErrBusy, "pid %d is in use: by %s, where the checkpoint has %s; nothing was ended", p.PID, exe, p.Exe)
		}
	}
	tree.End(fds)
	end := time.Now().Add(10 * time.Second)
	for ; time.Now().Before(end); time.Sleep(500 * time.Microsecond) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		gone := true
		for _, p := range in.Processes {
			gone = gone && unix.Kill(p.PID, 0) == unix.ESRCH
		}
		if gone {
			break
		}
	}
	// A pid is also taken for as long as it is the group or session of somebody
	// who has ended and was not waited for.
	for {
		res, err := Restore(ctx, dir, o)
		if !errors.Is(err, ErrBusy) || time.Now().After(end) || ctx.Err() != nil {
			return res, err
		}
		time.Sleep(time.Millisecond)
	}
}
