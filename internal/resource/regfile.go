package resource

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
)

// Files that are opened by a path: regular files, directories, devices without
// a state of their own, files of /proc and /sys, and O_PATH descriptors of
// anything that has a name.
//
// The kernel keeps for an open file: its path (the fd link), its flags and
// offset (fdinfo), its owner (fcntl). The offset of a directory is the file
// system's own cookie, which lseek(2) takes back. What must not have changed
// until the restore is in file_extra: inode, size and time (see change.go). A
// file without a name travels in the checkpoint (see ghost.go).
type regular struct{}

func init() { Register(regular{}) }

func (regular) Name() string            { return "file" }
func (regular) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_REG} }
func (regular) Priority() int           { return 1000 }

func (regular) Match(f *File) bool { return strings.HasPrefix(f.Link, "/") }

// keptFlags are the flags of an open file that open(2) takes and F_GETFL shows;
// O_ASYNC is set with the owner.
const keptFlags = unix.O_ACCMODE | unix.O_APPEND | unix.O_NONBLOCK | unix.O_SYNC | unix.O_DSYNC |
	unix.O_DIRECT | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_NOATIME | unix.O_PATH

func (k regular) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	if f.Flags()&unix.O_PATH == 0 {
		if why := deviceState(&f.Stat); why != "" {
			d.Refusal(f, why, "close it before the checkpoint")
			return nil, nil
		}
	}
	at, err := d.locate(f)
	if err != nil || at.refused {
		return nil, err
	}
	if at.deleted {
		if err := d.ghost(f, at); err != nil {
			return nil, err
		}
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	b := d.regEntry(f, at, o)
	e := &b.file
	e.Type, e.Reg = fdinfo.FdTypes_REG.Enum(), &b.reg
	if err := d.saveContent(f, at); err != nil {
		return nil, err
	}
	return e, nil
}

// regBlock is the entry of a file at a path with its values, and the record of
// what it must still be: ten thousand of them shall not be a hundred thousand
// allocations.
type regBlock struct {
	file  fdinfo.FileEntry
	reg   regfile.RegFileEntry
	extra fm.FileExtra

	id, flags, mode            uint32
	pos, size, dev, ino, other uint64
	mtime                      int64
	name                       string
}

// regEntry makes the entry of a file at a path, and the record of what it must
// still be when it is opened again.
func (d *Dump) regEntry(f *File, at place, o *fown.FownEntry) *regBlock {
	st := &f.Stat
	b := &regBlock{
		id: f.ID, flags: f.Info.Flags &^ unix.O_CLOEXEC, mode: st.Mode, pos: uint64(f.Info.Pos), name: at.path,
		size: uint64(st.Size), dev: st.Dev, ino: st.Ino, other: uint64(st.Rdev), mtime: st.Mtim.Nano(),
	}
	r := &b.reg
	r.Id, r.Flags, r.Pos, r.Fown, r.Name, r.Mode = &b.id, &b.flags, &b.pos, o, &b.name, &b.mode
	x := d.extras[f.ID]
	if x == nil {
		x = &b.extra
		x.Id = &b.id
		d.extras[f.ID] = x
	}
	switch {
	case at.pseudo != "":
		x.Fstype = proto.String(at.pseudo)
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		r.Size = &b.size
		x.Dev, x.Ino, x.MtimeNs = &b.dev, &b.ino, &b.mtime
	case isDevice(st.Mode):
		x.Data = &b.other
	default:
		x.Dev, x.Ino = &b.dev, &b.ino
	}
	return b
}

func isDevice(mode uint32) bool {
	t := mode & unix.S_IFMT
	return t == unix.S_IFCHR || t == unix.S_IFBLK
}

// stateless are the minor numbers of the memory devices (major 1,
// Documentation/admin-guide/devices.txt) that keep nothing for an open file.
var stateless = map[uint32]string{3: "null", 5: "zero", 7: "full", 8: "random", 9: "urandom"}

// deviceState says what stands in the way of opening a device a second time.
func deviceState(st *unix.Stat_t) string {
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return ""
	}
	major, minor := unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	if major == 1 && stateless[minor] != "" {
		return ""
	}
	return fmt.Sprintf("character device %d:%d: what its driver keeps for an open file is not known", major, minor)
}

// place is where a file is found by name.
type place struct {
	path    string
	pseudo  string // the file system's name when the kernel makes the content up
	deleted bool   // no name leads to it
	refused bool
}

// locate finds out whether the text of a file's link still leads to it.
func (d *Dump) locate(f *File) (place, error) {
	at := place{path: f.Link}
	fs, err := d.fileSystem(f)
	if err != nil {
		return at, err
	}
	at.pseudo = fs.pseudo
	if fs.never != "" {
		d.Refusal(f, fs.never, "close it before the checkpoint")
		at.refused = true
		return at, nil
	}
	var now unix.Stat_t
	err = d.paths.lstat(at.path, &now)
	if err == nil && (now.Dev == f.Stat.Dev && now.Ino == f.Stat.Ino || fs.proc && now.Mode == f.Stat.Mode) {
		if fs.proc {
			at.refused = d.foreignProc(f, at.path)
		}
		return at, nil
	}
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ENAMETOOLONG) {
		d.Refusal(f, fmt.Sprintf("its path cannot be examined: %v", err), "")
		at.refused = true
		return at, nil
	}
	name, cut := strings.CutSuffix(f.Link, " (deleted)")
	switch {
	case at.pseudo != "":
		d.Refusal(f, "the "+at.pseudo+" entry it was opened as is gone", "close it before the checkpoint")
		at.refused = true
	case cut:
		at.path, at.deleted = name, true
	default:
		d.Refusal(f, "its path leads to another file here: it is covered by a mount, or belongs to another mount namespace", "checkpoint from within that mount namespace, or close it")
		at.refused = true
	}
	return at, nil
}

// foreignProc notes whose a file of /proc is that belongs to a process outside,
// and refuses one whose process has ended.
func (d *Dump) foreignProc(f *File, path string) bool {
	rest, ok := strings.CutPrefix(path, "/proc/")
	if !ok || d.InTree == nil {
		return false
	}
	first, _, _ := strings.Cut(rest, "/")
	pid, err := strconv.Atoi(first)
	if err != nil || d.InTree(pid) {
		return false
	}
	// Good as long as that process is there: its start tells it from another
	// one with the same pid.
	st, err := procfs.ReadStat(pid, 0)
	if err != nil {
		d.Refusal(f, fmt.Sprintf("it shows pid %d, which is outside the tree and has ended", pid), "close the file")
		return true
	}
	d.Extra(f).Data2 = proto.Uint64(st.StartTime)
	return false
}

// fileSystem is what matters of a file system.
type fileSystem struct {
	pseudo string
	proc   bool
	never  string // why its files cannot be saved at all
}

type fileSystemKey struct{ dev uint64 }

// Magic numbers of statfs(2) (include/uapi/linux/magic.h).
var pseudoFS = map[int64]string{
	unix.PROC_SUPER_MAGIC: "proc", unix.SYSFS_MAGIC: "sysfs", unix.DEBUGFS_MAGIC: "debugfs",
	unix.TRACEFS_MAGIC: "tracefs", unix.CGROUP_SUPER_MAGIC: "cgroup", unix.CGROUP2_SUPER_MAGIC: "cgroup2",
	unix.SECURITYFS_MAGIC: "securityfs", unix.SELINUX_MAGIC: "selinuxfs", unix.SMACK_MAGIC: "smackfs",
	unix.BINFMTFS_MAGIC: "binfmt_misc", unix.PSTOREFS_MAGIC: "pstore", unix.EFIVARFS_MAGIC: "efivarfs",
	unix.DEVPTS_SUPER_MAGIC: "devpts", unix.BPF_FS_MAGIC: "bpf", 0x62656570: "configfs", unix.RDTGROUP_SUPER_MAGIC: "resctrl",
}

var neverFS = map[int64]string{
	unix.SECRETMEM_MAGIC: "secret memory (memfd_secret): nobody but its owner can read it",
	0x19800202:           "POSIX message queue: its messages cannot be read without taking them",
	unix.DMA_BUF_MAGIC:   "buffer of a device (dma-buf)",
	unix.NSFS_MAGIC:      "namespace",
}

func (d *Dump) fileSystem(f *File) (fileSystem, error) {
	return Value(d, fileSystemKey{f.Stat.Dev}, func() (fileSystem, error) {
		var fs fileSystem
		var b unix.Statfs_t
		if err := unix.Statfs(f.Path(), &b); err != nil {
			return fs, fmt.Errorf("statfs: %w", err)
		}
		magic := int64(b.Type)
		fs.pseudo, fs.never = pseudoFS[magic], neverFS[magic]
		fs.proc = magic == unix.PROC_SUPER_MAGIC
		return fs, nil
	})
}

func (k regular) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	reg := e.GetReg()
	if reg == nil {
		return -1, fault.Errorf(fault.ErrDamaged, "no file in the entry")
	}
	if m, err := r.remapped(e.GetId()); err != nil {
		return -1, err
	} else if m != nil {
		return r.openGhost(e.GetId())
	}
	x := r.Extra(e.GetId())
	flags := int(reg.GetFlags()) & keptFlags
	fd, err := r.openNow(reg, flags, x)
	if errors.Is(err, unix.ENOENT) && r.Files == FilesRollback && x.GetSaved() != "" {
		if err = r.recreate(reg.GetName(), x, reg); err == nil {
			fd, err = r.openNow(reg, flags, x)
		}
	}
	if err != nil {
		return -1, err
	}
	if err := r.opened(fd, reg, x); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", reg.GetName(), err)
	}
	return fd, nil
}

// Late: a file of /proc that shows a task is opened when that exists.
func (regular) Late(r *Restore, e *fdinfo.FileEntry) bool {
	rest, ok := strings.CutPrefix(e.GetReg().GetName(), "/proc/")
	return ok && rest != "" && rest[0] >= '0' && rest[0] <= '9' && r.Extra(e.GetId()).GetFstype() == "proc"
}

// openLinked opens a file through symbolic links, if it is the one that was saved.
func openLinked(name string, flags int, x *fm.FileExtra) (int, error) {
	fd, err := unix.Open(name, flags, 0)
	if err != nil {
		return -1, fmt.Errorf("%s: open: %w", name, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && x != nil && x.Ino != nil && x.GetIno() == st.Ino && x.GetDev() == uint64(st.Dev) {
		return fd, nil
	}
	unix.Close(fd)
	if err != nil {
		return -1, fmt.Errorf("%s: %w", name, err)
	}
	return -1, fault.Errorf(fault.ErrRefused, "%s: a symbolic link has come into its path, and leads to another file", name)
}

// setOffset moves a new description to where the old one was.
func setOffset(fd int, pos int64) error {
	if pos == 0 {
		return nil // where a new one is
	}
	if _, err := unix.Seek(fd, pos, unix.SEEK_SET); err != nil {
		return fmt.Errorf("offset %d: %w", pos, err)
	}
	return nil
}
