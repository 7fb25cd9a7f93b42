package resource

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// Files that a task holds without a descriptor: those it maps, its working and
// root directory, its executable. Each gets an entry like that of an open file,
// and is opened again in the same way.

type mappedKey struct {
	major, minor uint32
	ino          uint64
	path         string
	write        bool
}

// MappedFile gives the id of the file behind a mapping, 0 when it was refused.
// The file is examined through /proc/PID/map_files (proc_pid_map_files(5),
// which needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN; without them by its path)
// the first time that any task shows it; then it costs a look into a table. A
// shared mapping whose file was opened for writing gives an entry open for
// reading and writing, all others one for reading. The caller keeps anonymous
// shared memory ("/dev/zero (deleted)", "/SYSV…") to itself.
func (d *Dump) MappedFile(pid int, v *procfs.VMA) (id uint32, err error) {
	via := fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, v.Start, v.End)
	k := mappedKey{v.DevMajor, v.DevMinor, v.Ino, v.RawPath(), false}
	if v.Shared {
		// The link's own mode says how the file was opened; that decides what
		// mprotect(2) may make of the mapping, whatever its protection is now.
		var l unix.Stat_t
		if err := unix.Lstat(via, &l); err == nil {
			k.write = l.Mode&unix.S_IWUSR != 0
		} else {
			k.write = v.Write
		}
	}
	return Value(d, k, func() (uint32, error) {
		f := &File{PID: pid, FD: -1, via: via, Link: v.RawPath(), dump: d, dup: -1, lent: -1}
		if k.write {
			f.Info.Flags = unix.O_RDWR
		}
		if v.Escaped {
			if l, err := readlink(via); err == nil {
				f.Link = l
			}
		}
		err := unix.Stat(via, &f.Stat)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			if !d.findMapped(f, v) {
				d.Refusal(f, "the mapped file has no name any more, and only root can reach it", "run fermata as root, or with CAP_CHECKPOINT_RESTORE")
				return 0, nil
			}
			err = nil
		}
		if err != nil {
			return 0, fmt.Errorf("pid %d: area %x-%x (%s): %w", pid, v.Start, v.End, v.Path, err)
		}
		return d.held(f)
	})
}

// findMapped looks for another way to a mapped file: its path, the executable,
// a descriptor of the tree.
func (d *Dump) findMapped(f *File, v *procfs.VMA) bool {
	same := func(path string) bool {
		return unix.Stat(path, &f.Stat) == nil && f.Stat.Ino == v.Ino &&
			(v.DevMajor == 0 || unix.Major(uint64(f.Stat.Dev)) == v.DevMajor && unix.Minor(uint64(f.Stat.Dev)) == v.DevMinor)
	}
	if same(f.Link) {
		f.via = f.Link
		return true
	}
	exe := fmt.Sprintf("/proc/%d/exe", f.PID)
	if l, err := readlink(exe); err == nil && l == f.Link && same(exe) {
		f.via = exe
		return true
	}
	for _, o := range d.files {
		if o.Link == f.Link && o.Stat.Ino == v.Ino && same(o.Path()) {
			f.via = o.Path()
			return true
		}
	}
	return false
}

type pathKey struct {
	dev, ino uint64
	link     string
	flags    uint32
}

// PathFile gives the id of a file that a task refers to by one of its links
// below /proc/PID: "cwd", "root" (opened with O_PATH again, good for fchdir(2))
// or "exe" (opened for reading); 0 when it was refused. A working directory that
// was removed comes back as a removed directory.
func (d *Dump) PathFile(pid int, what string) (id uint32, err error) {
	via := "/proc/" + strconv.Itoa(pid) + "/" + what
	f := &File{PID: pid, FD: -1, via: via, dump: d, dup: -1, lent: -1}
	if f.Link, err = readlink(via); err != nil {
		return 0, fmt.Errorf("%s: %w", via, err)
	}
	if err := unix.Stat(via, &f.Stat); err != nil {
		return 0, fmt.Errorf("%s: %w", via, err)
	}
	if f.Stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		f.Info.Flags = unix.O_PATH | unix.O_DIRECTORY
	}
	return Value(d, pathKey{f.Stat.Dev, f.Stat.Ino, f.Link, f.Info.Flags}, func() (uint32, error) {
		return d.held(f)
	})
}

// held collects a file without a descriptor.
func (d *Dump) held(f *File) (uint32, error) {
	var k Kind = regular{}
	switch {
	case isMemfd(f):
		k = memfdKind{}
	case !strings.HasPrefix(f.Link, "/"):
		d.Refusal(f, "no way is known to save this kind of mapping", "unmap it before the checkpoint")
		return 0, nil
	}
	f.ID = uint32(len(d.files) + 1)
	f.Kind = k
	d.files = append(d.files, f)
	e, err := k.Collect(d, f)
	if err != nil {
		return 0, fmt.Errorf("pid %d: %s: %w", f.PID, f, err)
	}
	if e == nil {
		return 0, nil
	}
	e.Id = proto.Uint32(f.ID)
	f.Entry = e
	return f.ID, nil
}

func readlink(path string) (string, error) {
	b := make([]byte, 4096)
	n, err := unix.Readlink(path, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}
