package resource

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
)

// Memory files (memfd_create(2)). The kernel keeps for one: a name, which only
// the link shows; size, mode, owner and times (stat); seals (F_GET_SEALS); huge
// pages or not (statfs); the content, which is shared memory and travels with
// the memory of the tasks. Each open file has its flags and offset, as one of a
// regular file.
//
// Part "memfd-inodes" has a record for each. Its file is opened once for every
// description through /proc/self/fd. Seals are added before anything is mapped: a
// shared mapping of a sealed file must not be one that may become writable. Only
// F_SEAL_FUTURE_WRITE comes last of all, at Commit: a mapping that may write can
// be older than that.
type memfdKind struct{}

func init() { Register(memfdKind{}) }

func (memfdKind) Name() string            { return "memfd" }
func (memfdKind) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_MEMFD} }
func (memfdKind) Match(f *File) bool      { return isMemfd(f) }

type shmDevKey struct{}

// isMemfd tells a memfd from a file that is only called like one: it lies in the
// kernel's own mount of tmpfs, or in one of hugetlbfs.
func isMemfd(f *File) bool {
	if !strings.HasPrefix(f.Link, "/memfd:") || !strings.HasSuffix(f.Link, " (deleted)") ||
		f.Stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	dev, err := Value(f.dump, shmDevKey{}, func() (uint64, error) {
		fd, err := unix.MemfdCreate("fermata", unix.MFD_CLOEXEC)
		if err != nil {
			return 0, err
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		return uint64(st.Dev), err
	})
	if err == nil && dev == uint64(f.Stat.Dev) {
		return true
	}
	var b unix.Statfs_t
	return unix.Statfs(f.Path(), &b) == nil && int64(b.Type) == unix.HUGETLBFS_MAGIC
}

type memfdKey inodeKey

func (memfdKind) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	id, err := Value(d, memfdKey{f.Stat.Dev, f.Stat.Ino}, func() (uint32, error) { return d.memfdInode(f) })
	if err != nil {
		return nil, err
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	return &fdinfo.FileEntry{
		Type: fdinfo.FdTypes_MEMFD.Enum(),
		Memfd: &memfd.MemfdFileEntry{
			Id: proto.Uint32(f.ID), Flags: proto.Uint32(f.Info.Flags &^ unix.O_CLOEXEC),
			Pos: proto.Uint64(uint64(f.Info.Pos)), Fown: o, InodeId: proto.Uint32(id),
		},
	}, nil
}

type memfdCountKey struct{}

// memfdInode records a memfd the first time a description of it is seen.
func (d *Dump) memfdInode(f *File) (uint32, error) {
	n, _ := Value(d, memfdCountKey{}, func() (*uint32, error) { return new(uint32), nil })
	*n++
	src, err := openQuiet(f)
	if err != nil {
		return 0, err
	}
	d.CloseLater(src)
	seals, err := unix.FcntlInt(uintptr(src), unix.F_GET_SEALS, 0)
	if err != nil {
		return 0, fmt.Errorf("seals: %w", err)
	}
	name := strings.TrimSuffix(strings.TrimPrefix(f.Link, "/memfd:"), " (deleted)")
	m := &memfd.MemfdInodeEntry{
		Name: proto.String(name), Uid: proto.Uint32(f.Stat.Uid), Gid: proto.Uint32(f.Stat.Gid),
		Size: proto.Uint64(uint64(f.Stat.Size)), Shmid: proto.Uint32(*n), Seals: proto.Uint32(uint32(seals)),
		InodeId: proto.Uint64(uint64(*n)), Mode: proto.Uint32(f.Stat.Mode & 0o7777),
	}
	var b unix.Statfs_t
	if err := unix.Fstatfs(src, &b); err != nil {
		return 0, err
	}
	if int64(b.Type) == unix.HUGETLBFS_MAGIC {
		shift := bits.TrailingZeros64(uint64(b.Bsize))
		m.HugetlbFlag = proto.Uint32(unix.MFD_HUGETLB | uint32(shift)<<unix.MFD_HUGE_SHIFT)
	}
	x := d.Extra(f)
	x.Dev, x.Ino = proto.Uint64(f.Stat.Dev), proto.Uint64(f.Stat.Ino)
	x.MtimeNs, x.AtimeNs = proto.Int64(f.Stat.Mtim.Nano()), proto.Int64(f.Stat.Atim.Nano())
	d.Image.Add("memfd-inodes", m)
	if d.MemfdContent != nil && !ZeroMemfd(name) && !UnmapMemfd(name) {
		if err := d.MemfdContent(m.GetInodeId(), src, m.GetSize()); err != nil {
			return 0, fmt.Errorf("content: %w", err)
		}
	}
	return *n, nil
}

// Names by which a program says what becomes of a memfd (docs/for-programs.md);
// behind a colon follows whatever it likes.
const (
	zeroMemfd     = "fermata:zero"     // the content is not saved: zeros come back
	unmapMemfd    = "fermata:unmap"    // nor are its mappings
	restoredMemfd = "fermata:restored" // its first 8 bytes count restores
)

func isNamed(name, what string) bool { return name == what || strings.HasPrefix(name, what+":") }

// ZeroMemfd tells whether the content of a memfd of that name is left out.
func ZeroMemfd(name string) bool { return isNamed(name, zeroMemfd) }

// UnmapMemfd tells whether content and mappings of a memfd of that name are left
// out.
func UnmapMemfd(name string) bool { return isNamed(name, unmapMemfd) }

// RestoredMemfd tells whether a memfd of that name counts restores.
func RestoredMemfd(name string) bool { return isNamed(name, restoredMemfd) }

type memfdTableKey struct{}

func (memfdKind) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	m := e.GetMemfd()
	base, err := r.memfdBase(m.GetInodeId())
	if err != nil {
		return -1, err
	}
	if own, err := r.originalMemfd(m, base); own >= 0 || err != nil {
		return own, err
	}
	fd, err := unix.Open(selfFD(base), int(m.GetFlags())&keptFlags&^unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if m.GetFlags()&unix.O_PATH == 0 {
		if err := setOffset(fd, int64(m.GetPos())); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// originalMemfd gives the first description that was open for reading and
// writing the very file that memfd_create(2) makes: it alone does not count as a
// writer, so that the memfd can be executed when no other is open (execve(2),
// ETXTBSY). It is -1 for the others.
func (r *Restore) originalMemfd(m *memfd.MemfdFileEntry, base int) (int, error) {
	const settable = unix.O_APPEND | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_DIRECT | unix.O_ASYNC
	if m.GetFlags()&keptFlags&^settable != unix.O_RDWR {
		return -1, nil
	}
	first, _ := RestoreValue(r, memfdOriginalKey{m.GetInodeId()}, func() (uint32, error) { return m.GetId(), nil })
	if first != m.GetId() {
		return -1, nil
	}
	if m.GetFlags()&settable&keptFlags != 0 {
		if _, err := unix.FcntlInt(uintptr(base), unix.F_SETFL, int(m.GetFlags()&settable&keptFlags)); err != nil {
			return -1, nil
		}
	}
	fd, err := unix.FcntlInt(uintptr(base), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := setOffset(fd, int64(m.GetPos())); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

type memfdOriginalKey struct{ inode uint32 }

type memfdBaseKey struct{ id uint32 }

// memfdBase gives a descriptor of a memfd, made and filled at the first call.
func (r *Restore) memfdBase(id uint32) (int, error) {
	return RestoreValue(r, memfdBaseKey{id}, func() (int, error) {
		table, err := RestoreValue(r, memfdTableKey{}, func() (map[uint32]*memfd.MemfdInodeEntry, error) {
			all, err := image.All[*memfd.MemfdInodeEntry](r.Image, "memfd-inodes")
			t := map[uint32]*memfd.MemfdInodeEntry{}
			for _, m := range all {
				t[uint32(m.GetInodeId())] = m
			}
			return t, err
		})
		if err != nil {
			return -1, err
		}
		m := table[id]
		if m == nil {
			return -1, fault.Errorf(fault.ErrDamaged, "memfd %d is not in the image", id)
		}
		fd, err := r.makeMemfd(m)
		if err != nil {
			return -1, fmt.Errorf("memfd %q: %w", m.GetName(), err)
		}
		return fd, nil
	})
}

// mfdExec is MFD_EXEC (include/uapi/linux/memfd.h, Linux 6.3): an executable
// file whatever vm.memfd_noexec says.
const mfdExec = 0x10

func (r *Restore) makeMemfd(m *memfd.MemfdInodeEntry) (int, error) {
	if m.Shmid == nil {
		return -1, fault.Errorf(fault.ErrDamaged, "its record has no content's number")
	}
	flags := unix.MFD_CLOEXEC | int(m.GetHugetlbFlag())
	if m.GetSeals() != unix.F_SEAL_SEAL {
		flags |= unix.MFD_ALLOW_SEALING
	}
	fd, err := unix.MemfdCreate(m.GetName(), flags|mfdExec)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES) {
		fd, err = unix.MemfdCreate(m.GetName(), flags)
	}
	if err != nil {
		if m.GetHugetlbFlag() != 0 {
			err = fmt.Errorf("huge pages of %d bytes: %w", 1<<(m.GetHugetlbFlag()>>unix.MFD_HUGE_SHIFT&0x3f), err)
		}
		return -1, err
	}
	r.CloseLater(fd)
	if err := unix.Ftruncate(fd, int64(m.GetSize())); err != nil {
		return -1, fmt.Errorf("size %d: %w", m.GetSize(), err)
	}
	if r.MemfdFill != nil {
		if err := r.MemfdFill(m, fd); err != nil {
			return -1, fmt.Errorf("content: %w", err)
		}
	}
	if m.GetSeals()&sealExec != 0 {
		if err := unix.Fchmod(fd, m.GetMode()); err != nil {
			return -1, fmt.Errorf("mode: %w", err)
		}
	}
	if early := earlySeals(int(m.GetSeals())); early != 0 {
		if err := addSeals(fd, early); err != nil {
			return -1, err
		}
	}
	r.atCommit(func() error {
		if err := r.finishMemfd(fd, m); err != nil {
			return fmt.Errorf("memfd %q: %w", m.GetName(), err)
		}
		return nil
	})
	return fd, nil
}

// finishMemfd sets what would stand in the way of opening and mapping it.
func (r *Restore) finishMemfd(fd int, m *memfd.MemfdInodeEntry) error {
	if m.GetUid() != uint32(os.Geteuid()) || m.GetGid() != uint32(os.Getegid()) {
		if err := unix.Fchown(fd, int(m.GetUid()), int(m.GetGid())); err != nil {
			return fmt.Errorf("owner: %w", err)
		}
	}
	if err := unix.Fchmod(fd, m.GetMode()); err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	for id, e := range r.entries {
		x := r.extras[id]
		if e.GetMemfd().GetInodeId() == uint32(m.GetInodeId()) && x.GetMtimeNs() != 0 {
			ts := []unix.Timespec{unix.NsecToTimespec(x.GetAtimeNs()), unix.NsecToTimespec(x.GetMtimeNs())}
			if err := unix.UtimesNanoAt(unix.AT_FDCWD, selfFD(fd), ts, 0); err != nil {
				return fmt.Errorf("times: %w", err)
			}
			break
		}
	}
	return addSeals(fd, int(m.GetSeals()))
}

// Seals of include/uapi/linux/fcntl.h.
const (
	sealFutureWrite = 0x10 // F_SEAL_FUTURE_WRITE, Linux 5.1
	sealExec        = 0x20 // F_SEAL_EXEC, Linux 6.3
)

// earlySeals are those that must be there before the file is mapped.
func earlySeals(all int) int {
	if all&sealFutureWrite != 0 {
		return all &^ (sealFutureWrite | unix.F_SEAL_SEAL)
	}
	return all
}

func addSeals(fd, want int) error {
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("seals: %w", err)
	}
	if add := want &^ have; add != 0 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, add); err != nil {
			return fmt.Errorf("seals %#x: %w", add, err)
		}
	}
	return nil
}
