package fermata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Which processes a checkpoint is about: the roots that its caller names, by pid,
// session or control group, and whether they are still the ones when they stand
// still.

// findRoots gathers the processes whose trees are meant.
func (c *checkpoint) findRoots(pid int) error {
	self := tracee.Self()
	c.exclude = map[int]bool{os.Getpid(): true}
	seen := map[int]bool{}
	add := func(pid int) error {
		if seen[pid] {
			return nil
		}
		seen[pid] = true
		if pid <= 0 {
			return fault.Errorf(fault.ErrUsage, "%d is not a pid", pid)
		}
		if self[pid] {
			return fault.Errorf(fault.ErrUsage, "pid %d is fermata itself or an ancestor of it", pid)
		}
		st, err := procfs.ReadStat(pid, 0)
		if err != nil {
			if procfs.IsGone(err) {
				return fault.Errorf(fault.ErrNotFound, "no process %d", pid)
			}
			return err
		}
		if st.State == 'Z' && st.NumThreads < 2 {
			return fault.Errorf(fault.ErrNotFound, "pid %d (%s) has ended; its parent, pid %d, has not waited for it", pid, st.Comm, st.PPid)
		}
		if status, err := procfs.ReadStatus(pid, 0); err == nil {
			if !status.HasMM && st.State != 'Z' {
				return fault.Errorf(fault.ErrPermission, "pid %d (%s) is a kernel thread: it has no program to save", pid, st.Comm)
			}
			if status.Tgid != pid {
				return fault.Errorf(fault.ErrUsage, "%d is a thread of process %d: give that", pid, status.Tgid)
			}
		}
		c.roots = append(c.roots, pid)
		return nil
	}
	for _, p := range append([]int{pid}, c.opt.ExtraRoots...) {
		if p == 0 && (c.opt.Session != 0 || c.opt.Cgroup != "") {
			continue
		}
		if err := add(p); err != nil {
			return err
		}
	}
	more, err := members(c.opt.Session, c.opt.Cgroup)
	if err != nil {
		return err
	}
	for _, p := range more {
		if self[p] {
			continue
		}
		if err := add(p); err != nil && !errors.Is(err, fault.ErrNotFound) {
			return err
		}
	}
	if len(c.roots) == 0 {
		return fault.Errorf(fault.ErrNotFound, "no process is meant")
	}
	c.roots = topmost(c.roots)
	return nil
}

// complete looks, once the tree stands still, whether it is what was asked for.
// A root that has ended meanwhile belongs to its parent, who is outside: one
// that was given by its pid is missed, one that was only found in a session or
// cgroup is left out. What it has left to others may be new members of these.
func (c *checkpoint) complete(pid int) error {
	given := map[int]bool{pid: true}
	for _, p := range c.opt.ExtraRoots {
		given[p] = true
	}
	alive := c.roots[:0:0]
	for _, r := range c.roots {
		if p := c.tree.Process(r); p != nil && !p.Zombie {
			alive = append(alive, r)
			continue
		}
		if given[r] {
			return fault.Errorf(fault.ErrNotFound, "pid %d ended before it could be stopped", r)
		}
		c.tree.Drop(r)
	}
	c.roots = alive
	now, err := members(c.opt.Session, c.opt.Cgroup)
	if err != nil {
		return err
	}
	var refuse fault.Refusals
	var self map[int]bool
	if len(now) > 0 {
		self = tracee.Self()
	}
	for _, p := range now {
		st, err := procfs.ReadStat(p, 0)
		if err != nil || st.State == 'Z' || c.tree.Process(p) != nil || self[p] || c.exclude[p] {
			continue
		}
		refuse.Add(fault.Reason{PID: p, Comm: st.Comm, Object: "process", Why: "it has joined the session or cgroup while that was being stopped", Remedy: "try again", Passing: true})
	}
	if err := refuse.Err(); err != nil || len(alive) > 0 {
		return err
	}
	return fault.Errorf(fault.ErrNotFound, "every process ended before it could be stopped")
}

// members gives the processes of a session and of a cgroup.
func members(session int, cgroup string) (out []int, err error) {
	if session != 0 {
		all, err := procfs.ReadProcesses()
		if err != nil {
			return nil, err
		}
		for _, p := range all {
			if st, err := procfs.ReadStat(p, 0); err == nil && st.Session == session && st.State != 'Z' {
				out = append(out, p)
			}
		}
		if len(out) == 0 {
			return nil, fault.Errorf(fault.ErrNotFound, "no process in session %d", session)
		}
	}
	if cgroup != "" {
		found := false
		err := filepath.WalkDir(cgroup, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return err
			}
			found = true
			b, err := os.ReadFile(path)
			for _, f := range strings.Fields(string(b)) {
				var p int
				if _, err := fmt.Sscan(f, &p); err == nil {
					out = append(out, p)
				}
			}
			return err
		})
		if err != nil || !found {
			return nil, fault.Errorf(fault.ErrNotFound, "%s is not a cgroup directory (%v)", cgroup, err)
		}
	}
	return out, nil
}

// topmost drops the roots that are below others.
func topmost(roots []int) (out []int) {
	in := map[int]bool{}
	for _, r := range roots {
		in[r] = true
	}
	for _, r := range roots {
		below := false
		for p := r; p > 1; {
			st, err := procfs.ReadStat(p, 0)
			if err != nil {
				break
			}
			if p = st.PPid; in[p] {
				below = true
				break
			}
		}
		if !below {
			out = append(out, r)
		}
	}
	return out
}
