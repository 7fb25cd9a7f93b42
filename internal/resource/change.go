package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
)

// What a file must still be at the restore. A file that the tree has open for
// writing: its size and time, to the nanosecond. One that it only reads or maps:
// the same inode, not shorter than it was, or one of the same size and time.
// Directories, devices and made-up files: the same type.

// change is how a file differs from the one that was saved.
type change struct {
	why string
	cut bool // only bytes at the end are too many
	lax bool // the size is the same, and only a writer's file was written
	// sized: the size is another; timed: both sizes are known.
	sized, timed bool
	// other: it is of another type. No policy can go on with that.
	other bool
}

func compare(reg *regfile.RegFileEntry, x *fm.FileExtra, st *unix.Stat_t) *change {
	if was, is := reg.GetMode()&unix.S_IFMT, uint32(st.Mode)&unix.S_IFMT; reg.Mode != nil && was != is {
		return &change{why: fmt.Sprintf("is now a %s, was a %s", typeName(is), typeName(was)), other: true}
	}
	if isDevice(uint32(st.Mode)) && x.Data != nil && x.GetData() != uint64(st.Rdev) {
		was := x.GetData()
		return &change{why: fmt.Sprintf("is now device %d:%d, was %d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)), unix.Major(was), unix.Minor(was))}
	}
	was, is := int64(reg.GetSize()), st.Size
	if reg.GetFlags()&unix.O_PATH != 0 {
		return nil
	}
	if x.MtimeNs == nil {
		if reg.Size == nil || was == is || uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG {
			return nil
		}
		return &change{why: fmt.Sprintf("has %d bytes, had %d at the checkpoint", is, was), cut: is > was, sized: true, timed: true}
	}
	c := changed(reg, x, st)
	if c != nil {
		c.sized, c.timed = was != is, true
	}
	return c
}

// changed is compare for a regular file whose time is known.
func changed(reg *regfile.RegFileEntry, x *fm.FileExtra, st *unix.Stat_t) *change {
	was, is := int64(reg.GetSize()), st.Size
	when := func() string { return time.Unix(0, st.Mtim.Nano()).Format(time.RFC3339Nano) }
	same := x.GetDev() == uint64(st.Dev) && x.GetIno() == st.Ino
	writer := reg.GetFlags()&unix.O_ACCMODE != unix.O_RDONLY
	switch {
	case is == was && st.Mtim.Nano() == x.GetMtimeNs():
		return nil
	case !writer && same && is >= was:
		return nil
	case !same:
		return &change{why: fmt.Sprintf("was replaced by another file since the checkpoint (%d bytes of %s, was %d bytes)", is, when(), was)}
	case is < was:
		return &change{why: fmt.Sprintf("shrank from %d to %d bytes since the checkpoint", was, is)}
	case is > was:
		return &change{why: fmt.Sprintf("grew from %d to %d bytes since the checkpoint", was, is), cut: true}
	}
	return &change{why: fmt.Sprintf("was written since the checkpoint, at %s", when()), lax: true}
}

func typeName(mode uint32) string {
	switch mode {
	case unix.S_IFREG:
		return "regular file"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	case unix.S_IFIFO:
		return "FIFO"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "file of another kind"
}

const (
	remedyWriter = "--files=rollback cuts a file open for writing back to its saved size, --files=keep goes on with it as it is"
	remedySaved  = "--files=rollback puts the saved content back, --files=keep goes on with it as it is"
	remedyOther  = "put the file back as it was"
	remedyReader = "put the file back as it was, or go on with it as it is: --files=keep"
)

// judge says what a policy makes of a change: a reason to refuse, or nil.
func (r *Restore) judge(reg *regfile.RegFileEntry, x *fm.FileExtra, c *change) *fault.Reason {
	if c != nil && c.other {
		return &fault.Reason{Object: reg.GetName(), Why: c.why, Remedy: remedyOther}
	}
	if c == nil || r.Files == FilesKeep || r.Files == FilesSize && c.timed && !c.sized {
		return nil
	}
	writer := reg.GetFlags()&unix.O_ACCMODE != unix.O_RDONLY
	if r.Files == FilesRollback && (x.GetSaved() != "" || writer && (c.cut || c.lax)) {
		return nil
	}
	reason := &fault.Reason{Object: reg.GetName(), Why: c.why, Remedy: remedyReader}
	switch {
	case r.Files == FilesRollback && writer:
		reason.Why += ": it cannot be cut back to what it was"
	case x.GetSaved() != "":
		reason.Remedy = remedySaved
	case writer:
		reason.Remedy = remedyWriter
	}
	return reason
}

type saidKey struct{ object, why string }

// refuse notes a reason once, however many descriptions share the file.
func (r *Restore) refuse(x fault.Reason) {
	_, _ = RestoreValue(r, saidKey{x.Object, x.Why}, func() (bool, error) {
		r.Refuse.Add(x)
		return true, nil
	})
}

// note is Note, once.
func (r *Restore) note(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	_, _ = RestoreValue(r, saidKey{"", s}, func() (bool, error) {
		r.Note("%s", s)
		return true, nil
	})
}

// Check finds files that are missing or changed.
func (regular) Check(r *Restore, e *fdinfo.FileEntry) error {
	reg, x := e.GetReg(), r.Extra(e.GetId())
	if reg == nil {
		return fault.Errorf(fault.ErrDamaged, "no file in the entry")
	}
	m, err := r.remapped(e.GetId())
	if err != nil {
		return err
	}
	if m != nil {
		return r.checkGhost(m, reg, x)
	}
	return r.checkPath(reg, x)
}

// checkPath finds out whether a file is still what it was.
func (r *Restore) checkPath(reg *regfile.RegFileEntry, x *fm.FileExtra) error {
	if x.GetFstype() == "proc" {
		r.checkProc(reg.GetName(), x)
		return nil // may be of a task that does not exist yet
	}
	name := reg.GetName()
	var st unix.Stat_t
	err := r.paths.lstat(name, &st)
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		if r.Files != FilesRollback || x.GetSaved() == "" {
			remedy := "put it back"
			if x.GetSaved() != "" {
				remedy = "put it back, or let --files=rollback make it again from the checkpoint"
			}
			r.refuse(fault.Reason{Object: name, Why: "the file is gone", Remedy: remedy})
		}
		return nil
	default:
		r.refuse(fault.Reason{Object: name, Why: fmt.Sprintf("cannot be examined: %v", err)})
		return nil
	}
	if why := r.judge(reg, x, compare(reg, x, &st)); why != nil {
		r.refuse(*why)
	}
	if r.Verify {
		r.checkLease(reg, &st)
	}
	return nil
}

// checkProc finds out whether the process outside the tree that a file of /proc
// shows is still the same one.
func (r *Restore) checkProc(name string, x *fm.FileExtra) {
	if x.Data2 == nil {
		return
	}
	var pid int
	if _, err := fmt.Sscanf(name, "/proc/%d/", &pid); err != nil {
		return
	}
	if st, err := procfs.ReadStat(pid, 0); err != nil || st.StartTime != x.GetData2() {
		r.refuse(fault.Reason{Object: name, Why: fmt.Sprintf("the process with pid %d that it showed, outside the tree, is not there any more", pid), Remedy: "close the file before the checkpoint"})
	}
}

// checkLeases refuses every file with another's lease that opening would break.
func (r *Restore) checkLeases() {
	for _, id := range r.order {
		reg := r.entries[id].GetReg()
		var st unix.Stat_t
		if reg != nil && r.paths.lstat(reg.GetName(), &st) == nil {
			r.checkLease(reg, &st)
		}
	}
}

func (r *Restore) checkLease(reg *regfile.RegFileEntry, st *unix.Stat_t) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || reg.GetFlags()&unix.O_PATH != 0 {
		return
	}
	if who := r.leased(st, reg.GetFlags()&unix.O_ACCMODE != unix.O_RDONLY); who != "" {
		r.refuse(fault.Reason{Object: reg.GetName(), Why: who + " holds a lease on it, so that opening it would wait", Remedy: "end that process"})
	}
}

type leasesKey struct{}

// leased tells who has a lease that opening a file would break.
func (r *Restore) leased(st *unix.Stat_t, write bool) string {
	leases, _ := RestoreValue(r, leasesKey{}, func() (map[uint64]procfs.Lock, error) {
		locks, err := procfs.ReadLocks()
		m := map[uint64]procfs.Lock{}
		for _, l := range locks {
			if l.Kind == procfs.LockLease {
				m[l.Ino] = l
			}
		}
		return m, err
	})
	l, ok := leases[st.Ino]
	if !ok || l.DevMajor != unix.Major(uint64(st.Dev)) || l.DevMinor != unix.Minor(uint64(st.Dev)) || l.Mode == procfs.LockRead && !write {
		return ""
	}
	return process(l.PID)
}

// opened finishes a description that was just opened: the file may have changed
// after the check, and has to be rolled back when that is the policy.
func (r *Restore) opened(fd int, reg *regfile.RegFileEntry, x *fm.FileExtra) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if c := compare(reg, x, &st); c != nil {
		if why := r.judge(reg, x, c); why != nil {
			return fault.Errorf(fault.ErrRefused, "%s", why)
		}
		if r.Files == FilesRollback {
			r.rollback(fd, reg, x, c)
		}
	}
	if reg.GetFlags()&unix.O_PATH != 0 {
		return nil
	}
	if err := setOffset(fd, int64(reg.GetPos())); err != nil {
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			return err
		}
		// A position in a directory that is another one now, or a device's.
		r.note("%s: %v", reg.GetName(), err)
	}
	return nil
}

type rollbackKey struct{ dev, ino uint64 }

// rollback arranges that a file gets its old content or size at the very end:
// until then a restore that fails has changed nothing.
func (r *Restore) rollback(fd int, reg *regfile.RegFileEntry, x *fm.FileExtra, c *change) {
	if x.GetSaved() == "" && !c.cut {
		r.note("%s %s; its size is the saved one, so nothing was cut", reg.GetName(), c.why)
		return
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	_, _ = RestoreValue(r, rollbackKey{uint64(st.Dev), st.Ino}, func() (bool, error) {
		r.atCommit(func() error {
			w, err := unix.Open(selfFD(fd), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("%s: rolling back: %w", reg.GetName(), err)
			}
			defer unix.Close(w)
			if x.GetSaved() != "" {
				err = r.fill(w, x, int64(reg.GetSize()))
			} else {
				err = unix.Ftruncate(w, int64(reg.GetSize()))
			}
			if err != nil {
				return fmt.Errorf("%s: rolling back: %w", reg.GetName(), err)
			}
			return nil
		})
		return true, nil
	})
}

// recreate makes a missing file again whose content the checkpoint has; it is
// removed when the restore fails.
func (r *Restore) recreate(name string, x *fm.FileExtra, reg *regfile.RegFileEntry) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	r.onUndo(func() { _ = unix.Unlink(name) })
	if err := r.fill(fd, x, int64(reg.GetSize())); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return setAttributes(fd, reg.GetMode(), x)
}

// setAttributes gives a file that was made anew its owner, mode and times.
func setAttributes(fd int, mode uint32, x *fm.FileExtra) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	at := selfFD(fd)
	if x.Uid != nil && (st.Uid != x.GetUid() || st.Gid != x.GetGid()) {
		if err := unix.Chown(at, int(x.GetUid()), int(x.GetGid())); err != nil {
			return fmt.Errorf("owner %d:%d: %w", x.GetUid(), x.GetGid(), err)
		}
	}
	if st.Mode&0o7777 != mode&0o7777 {
		if err := unix.Chmod(at, mode&0o7777); err != nil {
			return fmt.Errorf("mode %o: %w", mode&0o7777, err)
		}
	}
	if x.AtimeNs != nil {
		ts := []unix.Timespec{unix.NsecToTimespec(x.GetAtimeNs()), unix.NsecToTimespec(x.GetMtimeNs())}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, at, ts, 0); err != nil {
			return fmt.Errorf("times: %w", err)
		}
	}
	return nil
}
