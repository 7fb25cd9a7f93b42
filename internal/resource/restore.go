package resource

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// FilesPolicy says what a restore does about files that changed.
type FilesPolicy int

// The policies of fermata restore --files.
const (
	FilesStrict FilesPolicy = iota
	FilesRollback
	FilesKeep
	FilesSize // of regular files nothing but the size matters
)

// Restore opens the files of a checkpoint again.
type Restore struct {
	Image  *image.Image
	Refuse *fault.Refusals
	// Dir is the checkpoint's directory (saved contents are in it).
	Dir   string
	Files FilesPolicy
	// Saved, when set, opens a saved content in place of a file below Dir: its
	// data, without the holes.
	Saved func(name string) (io.ReadCloser, error)
	// Note takes what could not be exactly as before, by documented rule.
	Note func(format string, a ...any)
	// Clock tells what the restored tasks read from CLOCK_MONOTONIC or
	// CLOCK_BOOTTIME at this moment, in nanoseconds; it is asked after OpenLate
	// was called. Without it, or when it is false, these clocks do not go on from
	// where they were, and timers get the time that was left.
	Clock func(clock int) (ns int64, ok bool)
	// PID gives the pid, as this process sees it, of a saved task; without it
	// tasks have the pids of the image here too.
	PID func(saved int) int
	// Foreground: the tree gets the terminal that this process was started from.
	Foreground bool
	// Task gives a process of the tree by its saved pid, once it exists and runs
	// an executor, still with this process's credentials; else nil. Sockets that
	// tell who made them (SO_PEERCRED) are made by it. Without Task they are
	// made by this process, with a Note.
	Task func(saved int) Task
	// MemfdFill fills a memfd that was just made, of the right size, with its
	// content.
	MemfdFill func(inode *memfd.MemfdInodeEntry, fd int) error

	// GuardName hears of a name that is about to be made for a moment, so that it
	// can be removed should this process die: with the inode it will have, or 0
	// where only the name says that it is fermata's (journal.TempPrefix). It gives what
	// to call when the name is gone or not made. nil: nobody would remove it.
	GuardName func(name string, dev, ino uint64) (gone func())

	// TCPClose: sockets that are connected by TCP become closed ones.
	TCPClose bool

	// Inherit has descriptors that stand for files, by what those were.
	Inherit map[string]int

	// Verify: nothing will be opened after Check, which therefore also looks for
	// what opening would find out.
	Verify bool

	entries map[uint32]*fdinfo.FileEntry
	order   []uint32
	extras  map[uint32]*fm.FileExtra
	fds     map[uint32]int
	opening map[uint32]bool
	values  map[any]any
	close   []int
	commits []func() error
	undos   []func()
	last    []func() error
	opener
}

// NewRestore reads the files' parts of an image.
func NewRestore(im *image.Image, refuse *fault.Refusals) (*Restore, error) {
	r := &Restore{
		Image: im, Refuse: refuse, Note: func(string, ...any) {},
		values: map[any]any{},
	}
	all, err := image.All[*fdinfo.FileEntry](im, "files")
	if err != nil {
		return nil, err
	}
	r.entries, r.order = make(map[uint32]*fdinfo.FileEntry, len(all)), make([]uint32, 0, len(all))
	r.fds, r.opening = make(map[uint32]int, len(all)), make(map[uint32]bool, len(all))
	for _, e := range all {
		r.entries[e.GetId()] = e
		r.order = append(r.order, e.GetId())
	}
	ex, err := image.All[*fm.FileExtra](im, "file-extra")
	if err != nil {
		return nil, err
	}
	r.extras = make(map[uint32]*fm.FileExtra, len(ex))
	for _, x := range ex {
		r.extras[x.GetId()] = x
	}
	return r, nil
}

// Entry gives a file's entry, or nil.
func (r *Restore) Entry(id uint32) *fdinfo.FileEntry { return r.entries[id] }

// IDs gives the files in the order they were collected.
func (r *Restore) IDs() []uint32 { return r.order }

// Extra gives what fermata saved beside a file's entry; never nil.
func (r *Restore) Extra(id uint32) *fm.FileExtra {
	if x := r.extras[id]; x != nil {
		return x
	}
	return &fm.FileExtra{}
}

// RestoreValue is Value for a restore.
func RestoreValue[K comparable, V any](r *Restore, key K, make func() (V, error)) (V, error) {
	if v, ok := r.values[key]; ok {
		return v.(V), nil
	}
	v, err := make()
	if err == nil {
		r.values[key] = v
	}
	return v, err
}

// Check asks every kind for conflicts; they gather in Refuse.
func (r *Restore) Check() error {
	if !r.Verify { // who has compared them already
		if err := r.checkSaved(); err != nil {
			return err
		}
	}
	for _, id := range r.order {
		e := r.entries[id]
		k := r.kindOf(e)
		if k == nil {
			r.Refuse.Add(fault.Reason{Object: fmt.Sprintf("file %d of type %v", id, e.GetType()), Why: "this fermata cannot restore it"})
			continue
		}
		if c, ok := k.(Checker); ok {
			if err := c.Check(r, e); err != nil {
				return fmt.Errorf("file %d (%s): %w", id, k.Name(), err)
			}
		}
	}
	return nil
}

// Open gives the controller's descriptor of a file, opening it the first time.
func (r *Restore) Open(id uint32) (int, error) {
	if fd, ok := r.fds[id]; ok {
		return fd, nil
	}
	e := r.entries[id]
	if e == nil {
		return -1, fault.Errorf(fault.ErrDamaged, "file %d: %w", id, errNoFile)
	}
	k := r.kindOf(e)
	if k == nil {
		return -1, fault.Errorf(fault.ErrRefused, "file %d: no way is known to restore type %v", id, e.GetType())
	}
	if r.opening[id] {
		return -1, fault.Errorf(fault.ErrDamaged, "file %d (%s) needs itself", id, k.Name())
	}
	r.opening[id] = true
	if n, ok := r.inherited(e); ok {
		fd, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return -1, fmt.Errorf("file %d (%s): inherited descriptor %d: %w", id, k.Name(), n, err)
		}
		r.Set(id, fd)
		return fd, nil
	}
	fd, err := k.Open(r, e)
	if err != nil {
		return -1, fmt.Errorf("file %d (%s): %w", id, k.Name(), err)
	}
	r.Set(id, fd)
	return fd, nil
}

// inherited gives the descriptor that stands for a file.
func (r *Restore) inherited(e *fdinfo.FileEntry) (int, bool) {
	if len(r.Inherit) == 0 {
		return -1, false
	}
	var name string
	switch {
	case e.Reg != nil:
		name = strings.TrimPrefix(e.Reg.GetName(), "/")
	case e.Pipe != nil:
		name = fmt.Sprintf("pipe:[%d]", e.Pipe.GetPipeId())
	case e.Usk != nil:
		name = fmt.Sprintf("socket:[%d]", e.Usk.GetIno())
	case e.Isk != nil:
		name = fmt.Sprintf("socket:[%d]", e.Isk.GetIno())
	}
	fd, ok := r.Inherit[name]
	return fd, ok
}

// Named tells whether a file is a regular one that is opened by its name, and no
// descriptor of the caller's stands for it: who opens it twice has the same file.
func (r *Restore) Named(id uint32) (bool, error) {
	e := r.entries[id]
	if e == nil || e.GetReg() == nil || e.GetReg().GetMode()&unix.S_IFMT != unix.S_IFREG {
		return false, nil
	}
	if _, ok := r.inherited(e); ok {
		return false, nil
	}
	m, err := r.remapped(id)
	return m == nil, err
}

// Set gives Restore a descriptor that a kind opened for another id of its own
// (the other end of a pipe).
func (r *Restore) Set(id uint32, fd int) { r.fds[id] = fd }

// OpenAll opens every file but the late ones, and links them when none is late.
func (r *Restore) OpenAll() error {
	late, err := r.openAll(false)
	if err != nil {
		return err
	}
	if err := r.checkLocks(); err != nil || late {
		return err
	}
	return r.link()
}

// OpenLate opens the files that had to wait for the tasks (Later), of which
// Late tells, and links all files. It must follow OpenAll when all tasks of the
// tree exist, zombies too, and may be called when none is late.
func (r *Restore) OpenLate() error {
	late, err := r.openAll(true)
	if err != nil || !late {
		return err
	}
	return r.link()
}

// Late tells whether a file is opened by OpenLate only: the descriptors of it
// reach the tasks after that.
func (r *Restore) Late(id uint32) bool {
	e := r.entries[id]
	if e == nil {
		return false
	}
	k, ok := r.kindOf(e).(Later)
	return ok && k.Late(r, e)
}

func (r *Restore) openAll(late bool) (any bool, err error) {
	var ahead map[uint32]bool
	if !late {
		var wait func()
		if ahead, wait, err = r.openAhead(); err != nil {
			return false, err
		}
		defer wait()
		first := slices.DeleteFunc(slices.Clone(r.order), func(id uint32) bool { return ahead[id] })
		if any, err = r.openThese(first, late); err != nil || len(ahead) == 0 {
			return any, err
		}
		wait()
	}
	later, err := r.openThese(r.order, late)
	return any || later, err
}

// openThese opens those of some files that are late, or those that are not.
func (r *Restore) openThese(ids []uint32, late bool) (any bool, err error) {
	for _, id := range ids {
		l := r.Late(id)
		any = any || l
		if l != late {
			continue
		}
		if _, err := r.Open(id); err != nil {
			return any, err
		}
	}
	return any, nil
}

func (r *Restore) link() error {
	for _, id := range r.order {
		e := r.entries[id]
		if l, ok := r.kindOf(e).(Linker); ok {
			if err := l.Link(r, e); err != nil {
				return fmt.Errorf("file %d: %w", id, err)
			}
		}
	}
	return nil
}

// Finish does what comes last, when the tasks are complete but for being let
// go: nothing opens, reads or writes a file of theirs afterwards.
func (r *Restore) Finish() error {
	if err := r.locksHere(); err != nil {
		return err
	}
	for _, id := range r.order {
		e := r.entries[id]
		if f, ok := r.kindOf(e).(Finisher); ok {
			if err := f.Finish(r, e); err != nil {
				return fmt.Errorf("file %d: %w", id, err)
			}
		}
	}
	return nil
}

// CloseLater hands Restore a descriptor to close at its end.
func (r *Restore) CloseLater(fd int) { r.close = append(r.close, fd) }

// atCommit keeps a change of the file system that cannot be taken back for
// Commit.
func (r *Restore) atCommit(f func() error) { r.commits = append(r.commits, f) }

// onUndo keeps how to take a change of the file system back.
func (r *Restore) onUndo(f func()) { r.undos = append(r.undos, f) }

// atRelease keeps what lets the world outside know that the program is back.
func (r *Restore) atRelease(f func() error) { r.last = append(r.last, f) }

// Release opens the way to the world outside: connections go on. It is called
// when every task is whole, right before the first one runs.
func (r *Restore) Release() error {
	for len(r.last) > 0 {
		if err := r.last[0](); err != nil {
			return err
		}
		r.last = r.last[1:]
	}
	return nil
}

// Commit makes what a restore changes in the file system for good: files that
// are rolled back, hidden links that are no longer needed. It is called once,
// when every task is whole and before the first one runs. Without it, Close
// takes back what was done before.
func (r *Restore) Commit() error {
	for len(r.commits) > 0 {
		if err := r.commits[0](); err != nil {
			return err
		}
		r.commits = r.commits[1:]
	}
	r.undos = nil
	return nil
}

// Close closes every descriptor of the controller; the tasks keep theirs.
func (r *Restore) Close() {
	for i := len(r.undos) - 1; i >= 0; i-- {
		r.undos[i]()
	}
	r.undos, r.commits = nil, nil
	r.paths.close()
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	for _, fd := range r.close {
		unix.Close(fd)
	}
	r.fds, r.close = map[uint32]int{}, nil
}

// InTask does, for one task, what its files need of its own context. done keeps
// which files had their turn in another task.
func (r *Restore) InTask(t Task, table []*fdinfo.FdinfoEntry, done map[uint32]bool) error {
	for _, early := range []bool{true, false} {
		for _, d := range table {
			id := d.GetId()
			if done[id] {
				continue
			}
			e := r.entries[id]
			if e == nil {
				return fault.Errorf(fault.ErrDamaged, "pid %d fd %d: file %d: %w", t.PID(), d.GetFd(), id, errNoFile)
			}
			k, ok := r.kindOf(e).(InTasker)
			if !ok {
				continue
			}
			if _, first := k.(Earlier); first != early {
				continue
			}
			done[id] = true
			if err := k.InTask(r, t, e, int(d.GetFd())); err != nil {
				return fmt.Errorf("pid %d fd %d: %w", t.PID(), d.GetFd(), err)
			}
		}
	}
	// Nothing of this task is closed from here on, which would drop its locks;
	// a lease makes its holder the owner, so owners come last.
	if err := r.locksInTask(t); err != nil {
		return err
	}
	return r.ownersInTask(t, table)
}

// FownOf gives the owner saved in an entry, nil when there is none.
func FownOf(e *fdinfo.FileEntry) *fown.FownEntry {
	var o *fown.FownEntry
	for _, g := range []interface{ GetFown() *fown.FownEntry }{
		e.GetReg(), e.GetIsk(), e.GetPsk(), e.GetNlsk(), e.GetEfd(), e.GetEpfd(), e.GetSgfd(),
		e.GetTfd(), e.GetIfy(), e.GetFfy(), e.GetExt(), e.GetUsk(), e.GetPipe(), e.GetTty(), e.GetMemfd(), e.GetPidfd(),
	} {
		if g != nil && g.GetFown() != nil {
			o = g.GetFown()
		}
	}
	if o.GetPid() == 0 && o.GetSignum() == 0 {
		return nil
	}
	return o
}
