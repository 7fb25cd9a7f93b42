package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	filelock "github.com/checkpoint-restore/go-criu/v8/crit/images/file-lock"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
)

// File locks (fs/locks.c). Each is in the fdinfo of the descriptors whose file it
// was taken through:
//
//	POSIX   fcntl F_SETLK: belongs to a process (its descriptor table) and an
//	        inode; closing any descriptor of the inode drops it
//	OFD     fcntl F_OFD_SETLK: belongs to the open file description
//	FLOCK   flock(2): likewise, one for each
//	LEASE   fcntl F_SETLEASE: likewise; whoever opens the file breaks it
//
// Part "file-locks" has a record for each lock that is held, "file-lock-files"
// the ids of their files in the same order. They are taken again by the process
// that had taken them, or one that has the descriptor, when all descriptors are
// in place. A task that waits for a lock does so again by itself: its call is
// issued again.

// Numbers of file_lock_entry.flag: the kernel's FL_ bits (include/linux/filelock.h).
const (
	flPosix = 1
	flFlock = 2
	flLease = 32
	flOFD   = 1024
)

// heldLock is a lock seen in the fdinfo of one descriptor.
type heldLock struct {
	pid, fd int
	f       *File
	procfs.Lock
}

// noteLocks keeps the locks that a descriptor shows; files that several tasks
// share show each task its own.
func (d *Dump) noteLocks(pid, fd int, f *File, locks []procfs.Lock) {
	if f == nil {
		return
	}
	for _, l := range locks {
		d.locks = append(d.locks, heldLock{pid, fd, f, l})
	}
}

type lockKey struct {
	file       uint32
	pid        int // 0 unless POSIX
	flag       uint32
	start, end uint64
}

// completeLocks writes the locks, each once, with the descriptor to take it
// through.
func (d *Dump) completeLocks() {
	seen := map[lockKey]bool{}
	files := &fm.Record{Id: proto.Uint32(0)}
	for _, l := range d.locks {
		if l.f.Entry == nil {
			continue
		}
		e, why := lockEntry(&l.Lock, l.f.Info.Flags&unix.O_ACCMODE == unix.O_RDONLY)
		if why != "" {
			d.NotNow(l.f, why, "wait until it is given up")
			continue
		}
		k := lockKey{l.f.ID, 0, e.GetFlag(), l.Start, l.End}
		pid, fd := l.pid, l.fd
		if e.GetFlag() == flPosix {
			k.pid = pid
		} else {
			pid, fd = l.f.holder(l.PID)
		}
		if seen[k] {
			continue
		}
		seen[k] = true
		if leader := d.Leader[pid]; leader != 0 {
			pid = leader
		}
		e.Pid, e.Fd = proto.Int32(int32(pid)), proto.Int32(int32(fd))
		d.Image.Add("file-locks", e)
		files.Num = append(files.Num, uint64(l.f.ID))
	}
	if len(files.Num) > 0 {
		d.Image.Add("file-lock-files", files)
	}
	d.locks = nil
}

// holder gives a descriptor of a file: of the process asked for if that has one,
// else any; 0, -1 for a file that is only in flight.
func (f *File) holder(pid int) (int, int) {
	if len(f.Holders) == 0 {
		return 0, -1
	}
	for _, h := range f.Holders {
		if h.PID == pid {
			return h.PID, h.FD
		}
	}
	return f.Holders[0].PID, f.Holders[0].FD
}

// Bits of a saved lease's type that another process is breaking: what is to be
// left of it.
const (
	breakToNone = 0x10
	breakToRead = 0x20
)

// lockEntry gives the record of a lock on a file that is open for reading only,
// or not.
func lockEntry(l *procfs.Lock, readOnly bool) (e *filelock.FileLockEntry, why string) {
	e = &filelock.FileLockEntry{Start: proto.Int64(int64(l.Start)), Len: proto.Int64(0)}
	if l.End != procfs.EndOfFile {
		e.Len = proto.Int64(int64(l.End-l.Start) + 1)
	}
	write := l.Mode == procfs.LockWrite
	if l.Kind == procfs.LockLease && l.State == "BREAKING" {
		// The kernel shows what the lease is to become. It was one for writing,
		// unless nothing is to be left of it, when that makes no difference.
		e.Flag, e.Type = proto.Uint32(flLease), proto.Uint32(unix.F_WRLCK|breakToRead)
		if l.Mode != procfs.LockRead {
			e.Type = proto.Uint32(unix.F_WRLCK | breakToNone)
			if readOnly {
				e.Type = proto.Uint32(unix.F_RDLCK | breakToNone)
			}
		}
		return e, ""
	}
	if !write && l.Mode != procfs.LockRead {
		return nil, fmt.Sprintf("its %s is being given up", l.Kind)
	}
	typ := uint32(unix.F_RDLCK)
	if write {
		typ = unix.F_WRLCK
	}
	switch l.Kind {
	case procfs.LockPosix:
		e.Flag = proto.Uint32(flPosix)
	case procfs.LockOFD:
		e.Flag = proto.Uint32(flOFD)
	case procfs.LockFlock:
		e.Flag = proto.Uint32(flFlock)
		typ = unix.LOCK_SH
		if write {
			typ = unix.LOCK_EX
		}
	case procfs.LockLease:
		if l.State != "ACTIVE" {
			return nil, "another process is breaking the lease on it"
		}
		e.Flag = proto.Uint32(flLease)
	default:
		return nil, fmt.Sprintf("a lock of kind %s cannot be taken again", l.Kind)
	}
	e.Type = proto.Uint32(typ)
	return e, ""
}

// savedLock is a lock of the image.
type savedLock struct {
	*filelock.FileLockEntry
	file uint32
}

func (r *Restore) savedLocks() ([]savedLock, error) {
	return RestoreValue(r, savedLocksKey{}, func() ([]savedLock, error) {
		all, err := image.All[*filelock.FileLockEntry](r.Image, "file-locks")
		if err != nil || len(all) == 0 {
			return nil, err
		}
		files, err := image.One[*fm.Record](r.Image, "file-lock-files")
		if err != nil {
			return nil, err
		}
		if len(files.Num) != len(all) {
			return nil, fault.Errorf(fault.ErrDamaged, "%d locks, of %d files", len(all), len(files.Num))
		}
		out := make([]savedLock, len(all))
		for i, e := range all {
			out[i] = savedLock{e, uint32(files.Num[i])}
		}
		return out, nil
	})
}

type savedLocksKey struct{}

// checkLocks finds out whether somebody has taken a lock in the meantime; the
// files are open, and no task exists yet.
func (r *Restore) checkLocks() error {
	all, err := r.savedLocks()
	if err != nil {
		return err
	}
	for _, l := range all {
		fd, ok := r.fds[l.file]
		if !ok {
			continue
		}
		who, err := l.taken(fd)
		if err != nil {
			return fmt.Errorf("file %d: %s: %w", l.file, l, err)
		}
		if who != "" {
			r.Refuse.Add(fault.Reason{Object: r.nameOf(l.file, fd), Why: fmt.Sprintf("the program's %s was taken by %s", l, who), Remedy: "end that process, or wait until it gives the lock up"})
		}
	}
	return nil
}

func (r *Restore) nameOf(id uint32, fd int) string {
	if n := r.entries[id].GetReg().GetName(); n != "" {
		return n
	}
	l, err := readlink(selfFD(fd))
	if err != nil {
		return fmt.Sprintf("file %d", id)
	}
	return l
}

// String names the lock: "POSIX write lock on bytes 0-9".
func (l savedLock) String() string {
	kind := map[uint32]string{flPosix: "POSIX ", flOFD: "OFD ", flFlock: "flock ", flLease: ""}[l.GetFlag()]
	mode := "read"
	if l.GetFlag() == flFlock && l.GetType() == unix.LOCK_EX || l.GetFlag() != flFlock && l.GetType()&^(breakToNone|breakToRead) == unix.F_WRLCK {
		mode = "write"
	}
	switch {
	case l.GetFlag() == flLease:
		return mode + " lease"
	case l.GetFlag() == flFlock:
		return kind + mode + " lock"
	case l.GetLen() == 0:
		return fmt.Sprintf("%s%s lock from byte %d on", kind, mode, l.GetStart())
	}
	return fmt.Sprintf("%s%s lock on bytes %d-%d", kind, mode, l.GetStart(), l.GetStart()+l.GetLen()-1)
}

// taken says who holds a lock that excludes this one, "" when nobody does.
func (l savedLock) taken(fd int) (string, error) {
	switch l.GetFlag() {
	case flPosix, flOFD:
		k := unix.Flock_t{Type: int16(l.GetType()), Start: l.GetStart(), Len: l.GetLen()}
		if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &k); err != nil {
			return "", err
		}
		if k.Type == unix.F_UNLCK {
			return "", nil
		}
		return process(int(k.Pid)), nil
	case flFlock:
		err := unix.Flock(fd, int(l.GetType())|unix.LOCK_NB)
		if err == nil {
			return "", unix.Flock(fd, unix.LOCK_UN)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return "", err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return "", err
		}
		locks, _ := procfs.ReadLocks()
		for _, k := range locks {
			if k.Kind == procfs.LockFlock && !k.Blocked && k.Ino == st.Ino {
				return process(k.PID), nil
			}
		}
		return process(0), nil
	}
	return "", nil
}

func process(pid int) string {
	if pid <= 0 {
		return "another process"
	}
	comm, _ := procfs.ReadComm(pid, 0)
	return fmt.Sprintf("pid %d (%s)", pid, comm)
}

// locksInTask takes the locks of a task.
func (r *Restore) locksInTask(t Task) error {
	all, err := r.savedLocks()
	if err != nil || len(all) == 0 {
		return err
	}
	pid := savedPID(t)
	e := t.Executor()
	e.Reset()
	var mine []savedLock
	flush := func() error {
		if len(mine) == 0 {
			return nil
		}
		if err := e.Run(); err != nil {
			return err
		}
		for i, l := range mine {
			if err := e.Err(i); err != nil {
				if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
					err = fault.Wrap(fault.ErrBusy, err)
				}
				return fmt.Errorf("pid %d fd %d: %s: %w", pid, l.GetFd(), l, err)
			}
			if l.GetFlag() == flLease && l.GetType()&(breakToNone|breakToRead) != 0 {
				if err := r.breakLease(l); err != nil {
					return fmt.Errorf("pid %d fd %d: %s: breaking it: %w", pid, l.GetFd(), l, err)
				}
			}
		}
		mine = nil
		e.Reset()
		return nil
	}
	for _, l := range all {
		if int(l.GetPid()) != pid {
			continue
		}
		if !e.Room(1, 40) {
			if err := flush(); err != nil {
				return err
			}
		}
		fd := uint64(l.GetFd())
		switch l.GetFlag() {
		case flPosix:
			e.Add(unix.SYS_FCNTL, fd, unix.F_SETLK, e.Put(flock(l)))
		case flOFD:
			e.Add(unix.SYS_FCNTL, fd, unix.F_OFD_SETLK, e.Put(flock(l)))
		case flFlock:
			e.Add(unix.SYS_FLOCK, fd, uint64(l.GetType())|unix.LOCK_NB)
		case flLease:
			e.Add(unix.SYS_FCNTL, fd, unix.F_SETLEASE, uint64(l.GetType()&^(breakToNone|breakToRead)))
		default:
			return fault.Errorf(fault.ErrDamaged, "lock of kind %d", l.GetFlag())
		}
		mine = append(mine, l)
	}
	return flush()
}

// flock is struct flock of a 64-bit task (include/uapi/asm-generic/fcntl.h).
func flock(l savedLock) []byte {
	var b [32]byte
	binary.NativeEndian.PutUint16(b[0:], uint16(l.GetType()))
	binary.NativeEndian.PutUint64(b[8:], uint64(l.GetStart()))
	binary.NativeEndian.PutUint64(b[16:], uint64(l.GetLen()))
	return b[:]
}

// locksHere takes the locks of files that no task has: those in flight.
func (r *Restore) locksHere() error {
	all, err := r.savedLocks()
	if err != nil {
		return err
	}
	for _, l := range all {
		fd, ok := r.fds[l.file]
		if l.GetPid() != 0 || !ok {
			continue
		}
		switch l.GetFlag() {
		case flOFD:
			err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: int16(l.GetType()), Start: l.GetStart(), Len: l.GetLen()})
		case flFlock:
			err = unix.Flock(fd, int(l.GetType())|unix.LOCK_NB)
		case flLease:
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, int(l.GetType()&^(breakToNone|breakToRead)))
		}
		if err != nil {
			return fmt.Errorf("file %d: %s: %w", l.file, l, err)
		}
	}
	return nil
}

// savedPID gives the pid that a task had in the checkpoint: its own, unless it
// is restored under another (SavedPID).
func savedPID(t Task) int {
	if s, ok := t.(interface{ SavedPID() int }); ok {
		return s.SavedPID()
	}
	return t.PID()
}

// breakLease makes the kernel ask for a lease as it had asked before: by an open
// that would have to wait. The time for the answer (/proc/sys/fs/lease-break-time)
// begins anew; the signal is taken away again with the others that the rebuilding
// causes.
func (r *Restore) breakLease(l savedLock) error {
	how := unix.O_WRONLY
	if l.GetType()&breakToRead != 0 {
		how = unix.O_RDONLY
	}
	fd, ok := r.fds[l.file]
	if !ok {
		return fault.Errorf(fault.ErrDamaged, "file %d is not open", l.file)
	}
	got, err := unix.Open(selfFD(fd), how|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(got)
		return errors.New("nothing waits for it")
	}
	if err != unix.EWOULDBLOCK {
		return err
	}
	return nil
}
