package resource

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// procDirs are open directories below /proc of the task whose table is being
// read: a short way to its small files.
type procDirs struct {
	pid    int
	fdinfo int
	self   int // /proc/self/fd
	buf    []byte
}

func (p *procDirs) close() {
	if p.buf != nil {
		unix.Close(p.fdinfo)
		unix.Close(p.self)
	}
	*p = procDirs{}
}

// of opens the directories of a task.
func (p *procDirs) of(pid int) error {
	if p.pid == pid && p.buf != nil {
		return nil
	}
	p.close()
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	fdinfo, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/fdinfo", flags, 0)
	if err != nil {
		return err
	}
	self, err := unix.Open("/proc/self/fd", flags, 0)
	if err != nil {
		unix.Close(fdinfo)
		return err
	}
	*p = procDirs{pid: pid, fdinfo: fdinfo, self: self, buf: make([]byte, 64<<10)}
	return nil
}

// readFDInfo is procfs.ReadFDInfo by the open directory.
func (p *procDirs) readFDInfo(fd int) (procfs.FDInfo, error) {
	i, err := unix.Openat(p.fdinfo, strconv.Itoa(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return procfs.FDInfo{}, err
	}
	n, err := unix.Read(i, p.buf)
	unix.Close(i)
	if err != nil {
		return procfs.FDInfo{}, err
	}
	if n == len(p.buf) {
		return procfs.ReadFDInfo(p.pid, fd) // thousands of epoll members
	}
	return procfs.ParseFDInfo(p.buf[:n])
}

// link gives the text of the link of one of this process's descriptors.
func (p *procDirs) link(fd int) (string, error) {
	n, err := unix.Readlinkat(p.self, strconv.Itoa(fd), p.buf)
	if err != nil {
		return "", err
	}
	return string(p.buf[:n]), nil
}

// FDState is what a task tells about one of its descriptors: nothing that says
// what a restore may open.
type FDState struct {
	Cloexec bool      // F_GETFD
	Owner   sys.Owner // F_GETOWN_EX, F_GETSIG; without the user ids
}

// fewFDs is up to how many descriptors a task is not asked about for. More pay
// for the one look into /proc/locks that saves one into each fdinfo: the kernel
// waits for an RCU grace period there, some milliseconds.
const fewFDs = 500

// examine reads what tells descriptions apart: flags, offset and stat; fdinfo
// too, unless the file is a plain one. It leaves a duplicate in f.lent for the
// rest of the collection, which done closes.
func (d *Dump) examine(pid, fd int, known *FDState) (f *File, done func(), err error) {
	f = &File{PID: pid, FD: fd, dump: d, dup: -1, lent: -1}
	if err := d.dirs.of(pid); err != nil {
		return nil, nil, err
	}
	done = func() { f.lent = -1 }
	if pid == ownPID {
		f.lent = fd
	} else {
		p, err := d.pidfd(pid)
		if err != nil {
			return nil, nil, err
		}
		if f.lent, err = unix.PidfdGetfd(p, fd, 0); err != nil {
			return nil, nil, fmt.Errorf("duplicate: %w", err)
		}
		done = func() {
			unix.Close(f.lent)
			f.lent = -1
		}
	}
	if err := d.read(f, known); err != nil {
		done()
		return nil, nil, err
	}
	return f, done, nil
}

func (d *Dump) read(f *File, known *FDState) (err error) {
	if err = unix.Fstat(f.lent, &f.Stat); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	f.told = known
	if known == nil || !d.plain(f) {
		f.Info, err = d.dirs.readFDInfo(f.FD)
		return err
	}
	f.Info.Ino = f.Stat.Ino
	if f.Info.Flags, f.Info.Pos, err = flagsAndOffset(f.lent, f.Stat.Mode); err != nil {
		return fmt.Errorf("flags and offset: %w", err)
	}
	if known.Cloexec {
		f.Info.Flags |= unix.O_CLOEXEC
	}
	return nil
}

// from is examine with what was seen of the descriptor ahead.
func (d *Dump) from(s *seen, pid, fd int, known *FDState) *File {
	f := &File{PID: pid, FD: fd, Link: s.link, Stat: s.stat, dump: d, dup: -1, lent: -1, told: known}
	f.Info.Ino, f.Info.Flags, f.Info.Pos = s.stat.Ino, s.flags, s.pos
	if known.Cloexec {
		f.Info.Flags |= unix.O_CLOEXEC
	}
	return f
}

// ordinary are file systems whose open files have nothing in fdinfo but flags,
// offset and locks, and whose lseek(2) to where it is changes nothing.
var ordinary = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true,
	unix.OVERLAYFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true, unix.RAMFS_MAGIC: true, unix.SQUASHFS_MAGIC: true,
}

type lockedKey struct{}

// plain tells whether all that matters of a file shows without its fdinfo.
func (d *Dump) plain(f *File) bool {
	if !d.plainKind(&f.Stat, f.lent) {
		return false
	}
	locked, err := Value(d, lockedKey{}, readLocked)
	return err == nil && !locked[f.Stat.Ino]
}

// plainKind is plain but for locks. Several goroutines may ask.
func (d *Dump) plainKind(st *unix.Stat_t, fd int) bool {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return deviceState(st) == ""
	case unix.S_IFREG, unix.S_IFDIR:
	default:
		return false
	}
	if ok, known := d.ordinary.Load(st.Dev); known {
		return ok.(bool)
	}
	var b unix.Statfs_t
	if unix.Fstatfs(fd, &b) != nil {
		return false
	}
	ok := ordinary[int64(b.Type)]
	d.ordinary.Store(st.Dev, ok)
	return ok
}

var ownPID = os.Getpid()
