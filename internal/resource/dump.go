package resource

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fown"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/image/wire"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// File is one open file description of the tasks being collected.
type File struct {
	ID   uint32        // in the image
	PID  int           // a task that has it (or this process, for files found in flight)
	FD   int           // under this number
	Link string        // what /proc/PID/fd/FD reads
	Stat unix.Stat_t   // of the file itself
	Info procfs.FDInfo // of the description

	Kind    Kind
	Entry   *fdinfo.FileEntry // as collected
	Holders []Holder          // every descriptor of every task that is this file
	dump    *Dump
	dup     int
	// via is where a file that no descriptor holds is examined: a mapping, a
	// working directory. FD is then -1.
	via string
	// told is what the task said about the descriptor, nil when it was not asked.
	told *FDState
	// lent is a duplicate for as long as the file is being collected, or -1.
	lent int
}

// Holder is one descriptor of one task.
type Holder struct {
	PID, FD int
	Cloexec bool
}

// Flags gives the open(2) flags without O_CLOEXEC, which belongs to the
// descriptor, and without the kernel's own O_LARGEFILE.
func (f *File) Flags() uint32 {
	return f.Info.Flags &^ (unix.O_CLOEXEC | kernelLargefile)
}

// Dup gives a descriptor of the same description in this process
// (pidfd_getfd(2), Linux 5.6). It belongs to the dump: do not close it.
func (f *File) Dup() (int, error) {
	if f.dup >= 0 {
		return f.dup, nil
	}
	if f.via != "" {
		return -1, fmt.Errorf("pid %d: %s: not open as a descriptor", f.PID, f)
	}
	if f.PID == ownPID {
		f.dup = f.FD
		return f.dup, nil
	}
	p, err := f.dump.pidfd(f.PID)
	if err != nil {
		return -1, err
	}
	n, err := unix.PidfdGetfd(p, f.FD, 0)
	if err != nil {
		return -1, fmt.Errorf("pid %d fd %d: duplicate: %w", f.PID, f.FD, err)
	}
	f.dup = n
	f.dump.close = append(f.dump.close, n)
	return n, nil
}

// borrow is Dup for a moment: ten thousand duplicates kept to the end would need
// a limit that the controller may not have.
func (f *File) borrow() (fd int, done func(), err error) {
	if f.lent >= 0 {
		return f.lent, func() {}, nil
	}
	if f.dup >= 0 || f.via != "" || f.PID == ownPID {
		fd, err = f.Dup()
		return fd, func() {}, err
	}
	p, err := f.dump.pidfd(f.PID)
	if err != nil {
		return -1, nil, err
	}
	if fd, err = unix.PidfdGetfd(p, f.FD, 0); err != nil {
		return -1, nil, fmt.Errorf("pid %d fd %d: duplicate: %w", f.PID, f.FD, err)
	}
	return fd, func() { unix.Close(fd) }, nil
}

// String names the file for messages: "fd 7 (pipe:[123])", "cwd (/tmp)".
func (f *File) String() string {
	if f.via != "" {
		what := strings.TrimPrefix(f.via, "/proc/"+strconv.Itoa(f.PID)+"/")
		if area, ok := strings.CutPrefix(what, "map_files/"); ok {
			what = "area " + area
		}
		return what + " (" + f.Link + ")"
	}
	return fmt.Sprintf("fd %d (%s)", f.FD, f.Link)
}

// Path gives the name below /proc through which the file can be opened or
// examined: /proc/PID/fd/FD, or of a mapping /proc/PID/map_files/START-END.
func (f *File) Path() string {
	if f.via != "" {
		return f.via
	}
	return "/proc/" + strconv.Itoa(f.PID) + "/fd/" + strconv.Itoa(f.FD)
}

// Dump is the collection of open files of one checkpoint.
type Dump struct {
	Image  *image.Image
	Refuse *fault.Refusals
	// SaveFiles: the content of regular files open for writing is wanted.
	SaveFiles bool
	// TCPOutside: connections of TCP whose peer is outside the tree are saved;
	// LockNetwork: packets are kept from them from then on, until a restore, if
	// the tasks are ended.
	TCPOutside, LockNetwork bool
	// SkipInFlight: connections that wait to be accepted, and whose client is
	// outside, are left out.
	SkipInFlight bool
	// Leader gives the pid of the process that a Table was read of, where that
	// was not the pid.
	Leader map[int]int
	// HideLinks: a file whose name is gone while another is left gets a hidden
	// link in any case. CRIU removes what it is told to open such a file by.
	HideLinks bool
	// InTree tells whether a pid belongs to the checkpoint.
	InTree func(pid int) bool

	// Content takes the bytes of files that must travel inside the checkpoint
	// (deleted files, SaveFiles): they are copied, sparse, when the memory is,
	// while the tasks stand still. name is unique in the checkpoint.
	Content func(name string, f *File) error
	// OpenKernel, when set, opens what Kernel gives.
	OpenKernel func() (*kmem.Reader, error)
	// List, when set, has a task tell which descriptors it has; nil when /proc is
	// to be asked.
	List func(pid int) ([]int, error)
	// Ask, when set, has a task tell about its descriptors what it can tell
	// cheapest itself; nil when it does not answer. All else about a plain file
	// can be asked of a duplicate, and fdinfo need not be read.
	Ask func(pid int, fds []int) ([]FDState, error)
	// InThreads, when set, has each thread of a process make a system call that
	// changes nothing but what the kernel owes the thread.
	InThreads func(pid int, nr uintptr, args ...uint64) error
	// MemfdContent takes the content of a memfd, size bytes of shared memory, by
	// a descriptor open for reading that stays open until Close. inodeID is that
	// of its memfd_inode_entry.
	MemfdContent func(inodeID uint64, fd int, size uint64) error
	// Guard, when set, is told of a socket option that is changed for a moment
	// (the place to peek from, the repair mode of TCP), before it is: should
	// this process die before release is called, the option is to be set to
	// value on a duplicate of fd.
	Guard func(fd, level, name int, value []byte) (release func())
	// GuardTerminal is the same for the line settings of a terminal that are
	// changed while its queues are examined: they are to be set on a duplicate of
	// fd (TCSETS2).
	GuardTerminal func(fd int, settings *unix.Termios) (release func())
	// GuardLock hears of a lock on connections (package netlock) before it is made:
	// should this process die before release is called, it is to be removed; after
	// published, only if the tasks go on.
	GuardLock func(name string) (published, release func())
	// GuardLink hears of a name that Commit is about to give a file, by its
	// device and inode: should this process die before the checkpoint is
	// published, the name is to be removed.
	GuardLink func(name string, dev, ino uint64)

	files   []*File
	groups  map[groupKey]fileSet
	extras  map[uint32]*fm.FileExtra
	pidfds  map[int]int
	close   []int
	atClose []func()
	mounts  map[int][]procfs.Mount
	values  map[any]any
	lost    []*File      // whose name is gone while another is left
	links   []hiddenLink // to be made by Commit
	locks   []heldLock
	dirs    procDirs
	// netLock is the lock on connections to the outside; keepLock: the tasks have
	// been ended, and it stays.
	netLock      string
	keepLock     bool
	lockReleased func()
	lockBelongs  func()
	paths        dirCache
	ordinary     sync.Map // of devices: is their file system one of those
}

type groupKey struct {
	dev, ino uint64
	flags    uint32
	pos      int64
}

// NewDump begins a collection.
func NewDump(im *image.Image, refuse *fault.Refusals) *Dump {
	return &Dump{
		Image: im, Refuse: refuse,
		groups: map[groupKey]fileSet{}, extras: map[uint32]*fm.FileExtra{},
		pidfds: map[int]int{}, mounts: map[int][]procfs.Mount{}, values: map[any]any{},
	}
}

// Close closes every duplicate made on the way.
func (d *Dump) Close() {
	for _, fd := range d.close {
		unix.Close(fd)
	}
	for _, fd := range d.pidfds {
		unix.Close(fd)
	}
	for _, f := range d.atClose {
		f()
	}
	d.atClose = nil
	d.close, d.pidfds = nil, map[int]int{}
	d.dirs.close()
	d.paths.close()
}

// CloseLater hands the dump a descriptor to close at its end.
func (d *Dump) CloseLater(fd int) { d.close = append(d.close, fd) }

// Value gives what a kind keeps for the whole dump under a key of its own type,
// making it at the first call (a sock_diag listing, a table of peers).
func Value[K comparable, V any](d *Dump, key K, make func() (V, error)) (V, error) {
	if v, ok := d.values[key]; ok {
		return v.(V), nil
	}
	v, err := make()
	if err == nil {
		d.values[key] = v
	}
	return v, err
}

func (d *Dump) pidfd(pid int) (int, error) {
	if fd, ok := d.pidfds[pid]; ok {
		return fd, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.EINVAL || err == unix.ENOENT {
		// A thread of a process whose leader has exited (Linux 6.9).
		fd, err = unix.PidfdOpen(pid, sys.PidfdThread)
	}
	if err != nil {
		return -1, fmt.Errorf("pid %d: pidfd_open: %w", pid, err)
	}
	d.pidfds[pid] = fd
	return fd, nil
}

// Mounts gives the mount table a task sees.
func (d *Dump) Mounts(pid int) ([]procfs.Mount, error) {
	if m, ok := d.mounts[pid]; ok {
		return m, nil
	}
	m, err := procfs.ReadMountInfo(pid)
	if err == nil {
		d.mounts[pid] = m
	}
	return m, err
}

// Extra gives the record of what the interchange schema has no field for.
func (d *Dump) Extra(f *File) *fm.FileExtra {
	x := d.extras[f.ID]
	if x == nil {
		x = &fm.FileExtra{Id: proto.Uint32(f.ID)}
		d.extras[f.ID] = x
	}
	return x
}

// Refusal notes why a file cannot be saved.
func (d *Dump) Refusal(f *File, why, remedy string) {
	d.refusal(f, fault.Reason{Why: why, Remedy: remedy})
}

// NotNow notes why a file cannot be saved at this moment, but most likely at
// the next: the checkpoint lets the program go on and tries again.
func (d *Dump) NotNow(f *File, why, remedy string) {
	d.refusal(f, fault.Reason{Why: why, Remedy: remedy, Passing: true})
}

func (d *Dump) refusal(f *File, r fault.Reason) {
	r.PID, r.Object = f.PID, f.String()
	for f.PID == unix.Getpid() {
		c, ok := d.values[carrierKey{f.FD}].(*File)
		if !ok {
			break
		}
		r.PID, r.Object = c.PID, fmt.Sprintf("%s, on its way in %s", f.Link, c)
		f = c
	}
	if c, err := procfs.ReadComm(f.PID, 0); err == nil {
		r.Comm = c
	}
	d.Refuse.Add(r)
}

// tableEntry is an entry of a table with its values: of ten thousand, one
// allocation.
type tableEntry struct {
	fdinfo.FdinfoEntry
	id, flags, fd uint32
}

// Table collects a task's descriptor table and gives its entries in ascending
// order of the descriptors.
func (d *Dump) Table(pid int) ([]*fdinfo.FdinfoEntry, error) {
	var fds []int
	var err error
	if d.List != nil {
		if fds, err = d.List(pid); err != nil {
			return nil, err
		}
	}
	if fds == nil {
		if fds, err = procfs.ReadFDs(pid); err != nil {
			return nil, fmt.Errorf("pid %d: descriptors: %w", pid, err)
		}
	}
	out := make([]*fdinfo.FdinfoEntry, 0, len(fds))
	var told []FDState
	if d.Ask != nil && len(fds) > fewFDs {
		if told, err = d.Ask(pid, fds); err != nil {
			return nil, fmt.Errorf("pid %d: asking about its descriptors: %w", pid, err)
		}
	}
	var look *ahead
	if told != nil {
		if look, err = d.lookAhead(pid, fds); err != nil {
			return nil, err
		}
		defer look.close()
	}
	entries := make([]tableEntry, len(fds))
	for i, fd := range fds {
		var known *FDState
		var s *seen
		if told != nil {
			known, s = &told[i], look.at(i)
		}
		f, cloexec, err := d.file(pid, fd, known, s)
		if err != nil {
			return nil, err
		}
		if f == nil || f.Entry == nil {
			continue // refused
		}
		f.Holders = append(f.Holders, Holder{pid, fd, cloexec})
		e := &entries[i]
		e.id, e.fd = f.ID, uint32(fd)
		if cloexec {
			e.flags = unix.FD_CLOEXEC
		}
		e.Id, e.Flags, e.Type, e.Fd = &e.id, &e.flags, f.Entry.Type, &e.fd
		out = append(out, &e.FdinfoEntry)
	}
	return out, nil
}

// File gives the description behind a descriptor, collecting it the first time
// any task shows it. It is nil when it was refused.
func (d *Dump) File(pid, fd int) (f *File, cloexec bool, err error) {
	return d.file(pid, fd, nil, nil)
}

// file is File of a descriptor of which something is known: what the task told,
// what was seen ahead.
func (d *Dump) file(pid, fd int, known *FDState, s *seen) (f *File, cloexec bool, err error) {
	var n *File
	if s != nil {
		n = d.from(s, pid, fd, known)
	} else {
		var done func()
		if n, done, err = d.examine(pid, fd, known); err != nil {
			return nil, false, fmt.Errorf("pid %d fd %d: %w", pid, fd, err)
		}
		defer done()
	}
	cloexec = n.Info.Flags&unix.O_CLOEXEC != 0
	k := groupKey{n.Stat.Dev, n.Stat.Ino, n.Flags(), n.Info.Pos}
	g := d.groups[k]
	same, run, at, err := g.find(n)
	if err != nil {
		return nil, false, err
	}
	if same != nil {
		d.noteLocks(pid, fd, same, n.Info.Locks)
		return same, cloexec, nil
	}
	if s == nil {
		if n.Link, err = d.dirs.link(n.lent); err != nil {
			return nil, false, fmt.Errorf("pid %d fd %d: %w", pid, fd, err)
		}
	}
	n.ID = uint32(len(d.files) + 1)
	d.files = append(d.files, n)
	d.groups[k] = g.insert(n, run, at)
	d.noteLocks(pid, fd, n, n.Info.Locks)
	return n, cloexec, d.collect(n)
}

func (d *Dump) collect(f *File) error {
	for _, k := range kinds {
		if !k.Match(f) {
			continue
		}
		f.Kind = k
		e, err := k.Collect(d, f)
		if err != nil {
			return fmt.Errorf("pid %d: %s: %s: %w", f.PID, f, k.Name(), err)
		}
		if e != nil {
			e.Id = proto.Uint32(f.ID)
			f.Entry = e
		}
		return nil
	}
	d.Refusal(f, "no way is known to save this kind of file", "close it before the checkpoint")
	return nil
}

// Files gives every description found so far.
func (d *Dump) Files() []*File { return d.files }

// Complete finishes the collection and puts it into the image: the parts
// "files" and "file-extra".
func (d *Dump) Complete() error {
	for _, k := range kinds {
		if c, ok := k.(Completer); ok {
			if err := c.Complete(d); err != nil {
				return fmt.Errorf("%s: %w", k.Name(), err)
			}
		}
	}
	d.completeLocks()
	for _, f := range d.files {
		if f.Entry == nil {
			continue
		}
		d.Image.Add("files", f.Entry)
		if x := d.extras[f.ID]; x != nil {
			d.Image.Add("file-extra", x)
		}
	}
	return nil
}

// noOwner is the entry of a file that has no owner of I/O signals; all of them
// share it.
var noOwner = &fown.FownEntry{
	Uid: proto.Uint32(0), Euid: proto.Uint32(0), Signum: proto.Uint32(0),
	PidType: proto.Uint32(0), Pid: proto.Uint32(0),
}

// Fown gives a file's owner of I/O signals, as F_GETOWN_EX, F_GETSIG and
// F_GETOWNER_UIDS (fcntl(2)) tell it.
func (d *Dump) Fown(f *File) (*fown.FownEntry, error) {
	if f.Info.Flags&unix.O_PATH != 0 || f.via != "" || f.told != nil && f.told.Owner == (sys.Owner{}) {
		return noOwner, nil
	}
	fd, done, err := f.borrow()
	if err != nil {
		return nil, err
	}
	w, err := sys.GetOwner(fd)
	done()
	if err != nil {
		return nil, fmt.Errorf("owner: %w", err)
	}
	if w.PID == 0 && w.Signal == 0 {
		return noOwner, nil
	}
	o := wire.Clone(noOwner)
	if w.PID != 0 && f.Stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		// Nothing shows which changes; fcntl(2) sets the owner with them.
		d.Refusal(f, "changes in this directory are told by a signal (F_NOTIFY)", "use inotify(7) instead")
	}
	if w.PID != 0 && !d.ownerInside(f, w) {
		what := [...]string{"thread", "process", "process group"}[min(max(w.Type, 0), 2)]
		d.Refusal(f, fmt.Sprintf("its I/O signals go to %s %d, outside the tree", what, w.PID), "checkpoint that process too, or F_SETOWN to one inside")
	}
	o.Uid, o.Euid = proto.Uint32(w.UID), proto.Uint32(w.EUID)
	o.Signum, o.Pid = proto.Uint32(uint32(w.Signal)), proto.Uint32(uint32(w.PID))
	o.PidType = proto.Uint32(pidType(w.Type))
	return o, nil
}

// ownerInside tells whether a thread, process or process group is of the tree.
func (d *Dump) ownerInside(f *File, w sys.Owner) bool {
	if d.InTree == nil || d.InTree(w.PID) {
		return true
	}
	switch w.Type {
	case ownerTID:
		st, err := procfs.ReadStatus(w.PID, 0)
		return err == nil && d.InTree(st.Tgid)
	case ownerGroup:
		// The group's leader may have ended: its members are told all the same.
		st, err := procfs.ReadStat(f.PID, 0)
		return err == nil && st.Pgrp == w.PID && d.InTree(f.PID)
	}
	return false
}

// Types of an owner (F_OWNER_TID, F_OWNER_PGRP; fcntl(2)).
const (
	ownerTID   = 0
	ownerGroup = 2
)

// The interchange schema stores the kernel's enum pid_type
// (include/linux/pid_types.h): PIDTYPE_PID, _TGID, _PGID; fcntl speaks of
// F_OWNER_TID, _PID, _PGRP.
func pidType(owner int) uint32 { return uint32(owner) }

var errNoFile = errors.New("no such file in the image")
