package sys

import (
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SysV shared memory (include/uapi/linux/shm.h): one call maps a segment into
// a task, which is what makes an injection that no death can break possible.
const (
	ipcCreat = 0o1000
	ipcExcl  = 0o2000
	ipcRmid  = 0
	ipcSet   = 1
	ipcStat  = 2
	// ShmExec asks shmat for an executable mapping (SHM_EXEC).
	ShmExec = 0o100000
	// ShmRdonly asks shmat for a mapping that cannot be written (SHM_RDONLY).
	ShmRdonly = 0o10000
)

// ipcPerm64 is struct ipc64_perm of 64-bit machines.
type ipcPerm64 struct {
	Key  int32
	UID  uint32
	GID  uint32
	CUID uint32
	CGID uint32
	Mode uint32
	Seq  uint16
	_    uint16
	_    uint32
	_    [2]uint64
}

type shmidDs struct {
	Perm  ipcPerm64
	Segsz uint64
	_     [3]uint64 // times
	_     [2]int32  // pids
	Users uint64    // shm_nattch
	_     [2]uint64
}

// Shm is a SysV segment mapped into this process.
type Shm struct {
	ID  int
	Mem []byte

	removed bool
}

// NewShm makes a segment of size bytes that only uid may attach (mode 0700:
// SHM_EXEC asks for execute permission), and maps it here. Close takes it away
// again. Unless key is 0 (IPC_PRIVATE) the segment can be found by it, and the
// error is EEXIST when there is such a segment already.
func NewShm(key int32, size int, uid, gid uint32) (*Shm, error) {
	id, _, e := unix.RawSyscall(unix.SYS_SHMGET, uintptr(key), uintptr(size), 0o700|ipcCreat|ipcExcl)
	if e != 0 {
		return nil, e
	}
	s := &Shm{ID: int(id)}
	// The address must be kept as unsafe.Pointer from the first: the kernel's
	// memory is not the collector's, so it never moves.
	p, _, e := unix.RawSyscall(unix.SYS_SHMAT, id, 0, 0)
	if e != 0 {
		s.Remove()
		return nil, e
	}
	s.Mem = unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&p))), size)
	if uid != uint32(unix.Geteuid()) {
		ds := shmidDs{}
		ds.Perm.UID, ds.Perm.GID, ds.Perm.Mode = uid, gid, 0o700
		if _, _, e := unix.RawSyscall(unix.SYS_SHMCTL, id, ipcSet, uintptr(unsafe.Pointer(&ds))); e != 0 {
			s.Close()
			return nil, e
		}
	}
	return s, nil
}

// Remove marks the segment for removal: it goes with its last mapping. Until then
// it can still be attached by its number (shmat(2): so it is on Linux).
func (s *Shm) Remove() {
	if !s.removed {
		unix.RawSyscall(unix.SYS_SHMCTL, uintptr(s.ID), ipcRmid, 0)
		s.removed = true
	}
}

// Close removes the segment and unmaps it here.
func (s *Shm) Close() {
	s.Remove()
	s.Unmap()
}

// Unmap unmaps the segment here and leaves it as it is.
func (s *Shm) Unmap() {
	if s.Mem != nil {
		unix.RawSyscall(unix.SYS_SHMDT, uintptr(unsafe.Pointer(&s.Mem[0])), 0, 0)
		s.Mem = nil
	}
}

// FindShm gives the id of the segment with a key, ENOENT when there is none.
func FindShm(key int32) (int, error) {
	id, _, e := unix.RawSyscall(unix.SYS_SHMGET, uintptr(key), 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(id), nil
}

// Bits of ShmInfo.Mode besides the permissions.
const (
	ShmDest   = 0o1000 // goes with its last user
	ShmLocked = 0o2000
)

// ShmInfo is what shmctl(2), IPC_STAT, tells of a segment. Sizes are in bytes.
type ShmInfo struct {
	Key      int32
	UID, GID uint32
	Mode     uint32 // permissions, ShmDest, ShmLocked
	Size     uint64
	Users    uint64 // how often it is attached
}

// ShmStat tells about a segment, whatever its permissions: EINVAL or EIDRM when
// there is none with this id.
func ShmStat(id int) (ShmInfo, error) {
	var ds shmidDs
	if _, _, e := unix.RawSyscall(unix.SYS_SHMCTL, uintptr(id), ipcStat, uintptr(unsafe.Pointer(&ds))); e != 0 {
		return ShmInfo{}, e
	}
	p := &ds.Perm
	return ShmInfo{p.Key, p.UID, p.GID, p.Mode, ds.Segsz, ds.Users}, nil
}

// MakeShm makes a segment with a chosen id (/proc/sys/kernel/shm_next_id, Linux
// 3.9, which needs CAP_CHECKPOINT_RESTORE) and key, for size bytes; flags are
// shmget(2)'s, such as SHM_HUGETLB. Errors: EEXIST when the key is taken,
// EBUSY when the id is.
func MakeShm(id int, i ShmInfo, flags int) error {
	if err := os.WriteFile("/proc/sys/kernel/shm_next_id", []byte(strconv.Itoa(id)), 0); err != nil {
		return err
	}
	got, _, e := unix.RawSyscall(unix.SYS_SHMGET, uintptr(i.Key), uintptr(i.Size), uintptr(flags)|uintptr(i.Mode&0o777)|ipcCreat|ipcExcl)
	if e != 0 {
		return e
	}
	if int(got) != id {
		_ = RemoveShm(int(got))
		return unix.EBUSY
	}
	ds := shmidDs{}
	ds.Perm.UID, ds.Perm.GID, ds.Perm.Mode = i.UID, i.GID, i.Mode&0o777
	if _, _, e := unix.RawSyscall(unix.SYS_SHMCTL, got, ipcSet, uintptr(unsafe.Pointer(&ds))); e != 0 {
		_ = RemoveShm(id)
		return e
	}
	return nil
}

// LockShm makes a segment's pages stay in memory (SHM_LOCK).
func LockShm(id int) error {
	const shmLock = 11
	if _, _, e := unix.RawSyscall(unix.SYS_SHMCTL, uintptr(id), shmLock, 0); e != 0 {
		return e
	}
	return nil
}

// ShmUsers gives how often a segment is attached, EINVAL or EIDRM when it is
// gone: one that is marked for removal goes with its last user.
func ShmUsers(id int) (uint64, error) {
	var ds shmidDs
	if _, _, e := unix.RawSyscall(unix.SYS_SHMCTL, uintptr(id), ipcStat, uintptr(unsafe.Pointer(&ds))); e != 0 {
		return 0, e
	}
	return ds.Users, nil
}

// AttachShm maps a segment of size bytes that exists, marked for removal or not.
// Close then only unmaps it.
func AttachShm(id, size int) (*Shm, error) {
	var ds shmidDs
	if _, _, e := unix.RawSyscall(unix.SYS_SHMCTL, uintptr(id), ipcStat, uintptr(unsafe.Pointer(&ds))); e != 0 {
		return nil, e
	}
	if ds.Segsz != uint64(size) {
		return nil, unix.EINVAL
	}
	p, _, e := unix.RawSyscall(unix.SYS_SHMAT, uintptr(id), 0, 0)
	if e != 0 {
		return nil, e
	}
	return &Shm{ID: -1, Mem: unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&p))), size)}, nil
}

// RemoveShm marks a segment for removal.
func RemoveShm(id int) error {
	if _, _, e := unix.RawSyscall(unix.SYS_SHMCTL, uintptr(id), ipcRmid, 0); e != 0 {
		return e
	}
	return nil
}
