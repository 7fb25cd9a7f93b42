package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/procfs"
)

// hierarchy is one mounted hierarchy that can freeze.
type hierarchy struct {
	file  string // its groups' freezer file
	mount procfs.Mount
}

// Find looks for the freezers of a tree with these processes: groups
// that have a task of the tree and none of anybody else, and groups that their
// user has frozen. What it gives is nil where there are none. j may be nil.
//
// A frozen group that holds others too is a *fault.RefusedError: it cannot be
// made to run for a moment without them.
func Find(pids map[int]bool, j *journal.Journal) (*Freezer, error) {
	w := &finder{pids: pids, own: map[string]bool{}}
	paths := map[string]bool{} // "controllers:path" lines that were seen already
	var mounts []hierarchy
	for pid := range pids {
		all, err := procfs.ReadCgroup(pid, 0)
		if err != nil {
			continue // it has gone
		}
		for _, c := range all {
			file := fileOf(c)
			if file == "" || c.Deleted || paths[file+c.Path] {
				continue
			}
			paths[file+c.Path] = true
			if c.Path == "/" {
				continue // a root cannot be frozen
			}
			if mounts == nil {
				if mounts, err = hierarchies(); err != nil {
					return nil, err
				}
			}
			w.place(mounts, file, c.Path, pid)
		}
	}
	f := &Freezer{journal: j}
	if err := w.frozen(f); err != nil {
		return nil, err
	}
	if len(f.groups) == 0 {
		if err := w.alone(f); err != nil {
			return nil, err
		}
	}
	if len(f.groups) == 0 {
		return nil, nil
	}
	return f, nil
}

// fileOf gives the freezer file of a hierarchy, or "".
func fileOf(c procfs.Cgroup) string {
	switch {
	case c.Hierarchy == 0 && len(c.Controllers) == 0:
		return file2
	case slices.Contains(c.Controllers, "freezer"):
		return file1
	}
	return ""
}

func hierarchies() (out []hierarchy, err error) {
	all, err := procfs.ReadMountInfo(os.Getpid())
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		switch {
		case m.FSType == "cgroup2":
			out = append(out, hierarchy{file2, m})
		case m.FSType == "cgroup" && slices.Contains(strings.Split(m.SuperOptions, ","), "freezer"):
			out = append(out, hierarchy{file1, m})
		}
	}
	return out, nil
}

// finder is one search.
type finder struct {
	pids map[int]bool
	dirs []place
	own  map[string]bool // of directories: nobody else is in or below it
}

// place is a group that a task of the tree is in.
type place struct {
	top  string // the mount point
	dir  string
	file string
	pid  int
}

// place finds the directory of a group.
func (w *finder) place(mounts []hierarchy, file, path string, pid int) {
	for _, h := range mounts {
		if h.file != file {
			continue
		}
		rel, ok := strings.CutPrefix(path, strings.TrimSuffix(h.mount.Root, "/"))
		if !ok || rel == "" || rel[0] != '/' {
			continue
		}
		dir := filepath.Join(h.mount.MountPoint, rel)
		// The kernel's own word that it is this one: mounts can hide each other.
		if slices.Contains(procs(dir), pid) {
			w.dirs = append(w.dirs, place{h.mount.MountPoint, dir, file, pid})
			return
		}
	}
}

// procs gives the processes in a group, nil where they cannot be told (a
// threaded group of version 2).
func procs(dir string) (out []int) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// only tells whether a group and those below it hold nothing but the tree.
func (w *finder) only(dir string) bool {
	if own, ok := w.own[dir]; ok {
		return own
	}
	own := true
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return err
		}
		for _, s := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(s); err != nil || !w.inTree(n) {
				own = false
				return fs.SkipAll
			}
		}
		return nil
	})
	w.own[dir] = own && err == nil
	return w.own[dir]
}

// inTree tells whether a process belongs to the tree; it may be new.
func (w *finder) inTree(pid int) bool {
	for range 100 {
		if w.pids[pid] {
			return true
		}
		if pid <= 1 { // 0: it is outside this pid namespace
			return false
		}
		st, err := procfs.ReadStat(pid, 0)
		if err != nil {
			return procfs.IsGone(err)
		}
		pid = st.PPid
	}
	return false
}

// frozen finds the groups that their user has frozen: a task's own, or one
// above it.
func (w *finder) frozen(f *Freezer) error {
	var refuse fault.Refusals
	seen := map[string]bool{}
	for _, p := range w.dirs {
		found := false
		for dir := p.dir; dir != p.top && len(dir) > len(p.top); dir = filepath.Dir(dir) {
			is := isSet(dir, p.file)
			found = found || is
			if !is || seen[dir] {
				continue
			}
			seen[dir] = true
			g, err := newGroup(filepath.Join(dir, p.file), true)
			if err != nil {
				return err
			}
			switch {
			case !w.only(dir):
				w.refuse(&refuse, p.pid, "cgroup "+g.base(), "it is frozen, and holds processes outside the tree: it cannot be made to run for a moment without them",
					"thaw it, or checkpoint all of it: --cgroup "+g.base())
			case unix.Access(g.file, unix.W_OK) != nil:
				w.refuse(&refuse, p.pid, "cgroup "+g.base(), "it is frozen, and this user cannot thaw it for a moment", "thaw it, or run fermata as root")
			default:
				f.groups = append(f.groups, g)
			}
		}
		if !found && isFrozen(p.dir, p.file) {
			w.refuse(&refuse, p.pid, "cgroup "+p.dir, "it is frozen by a group above what can be seen from here", "thaw that, or run fermata outside the container")
		}
	}
	return refuse.Err()
}

func (w *finder) refuse(r *fault.Refusals, pid int, object, why, remedy string) {
	comm, _ := procfs.ReadComm(pid, 0)
	r.Add(fault.Reason{PID: pid, Comm: comm, Object: object, Why: why, Remedy: remedy})
}

// isSet tells whether a group itself is set to be frozen.
func isSet(dir, file string) bool {
	if file == file1 {
		file = "freezer.self_freezing"
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// isFrozen tells whether a group is frozen, by whatever above it.
func isFrozen(dir, file string) bool {
	if file == file1 {
		b, err := os.ReadFile(filepath.Join(dir, "freezer.parent_freezing"))
		return err == nil && strings.TrimSpace(string(b)) == "1"
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	return err == nil && strings.Contains(string(b), "frozen 1")
}

// alone finds the groups that are the tree's own: the one that holds all of
// it, or, where that has others in it, each that a task is in. Version 2 is
// preferred; both at once would be no use.
func (w *finder) alone(f *Freezer) error {
	for _, file := range []string{file2, file1} {
		var all []string
		top := ""
		for _, p := range w.dirs {
			if p.file == file {
				all, top = append(all, p.dir), p.top
			}
		}
		if len(all) == 0 {
			continue
		}
		if c := common(all); c != top && len(c) > len(top) && w.only(c) {
			all = []string{c}
		}
		slices.Sort(all)
		last := ""
		for _, dir := range all {
			if last != "" && strings.HasPrefix(dir+"/", last+"/") || !w.only(dir) {
				continue // frozen with the one above, or shared
			}
			path := filepath.Join(dir, file)
			if unix.Access(path, unix.W_OK) != nil {
				continue
			}
			g, err := newGroup(path, false)
			if err != nil {
				return fmt.Errorf("cgroup: %w", err)
			}
			f.groups = append(f.groups, g)
			last = dir
		}
		if len(f.groups) > 0 {
			break
		}
	}
	return nil
}

// common gives the directory that all are in or below.
func common(dirs []string) string {
	c := dirs[0]
	for _, d := range dirs[1:] {
		for d != c && !strings.HasPrefix(d, c+"/") && c != "/" {
			c = filepath.Dir(c)
		}
	}
	return c
}
