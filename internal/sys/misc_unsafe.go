package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func getRobustList(tid int) (head, size uint64, err error) {
	_, _, e := unix.RawSyscall(unix.SYS_GET_ROBUST_LIST, uintptr(tid), uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&size)))
	if e != 0 {
		return 0, 0, e
	}
	return head, size, nil
}

// SchedAttr is struct sched_attr (include/uapi/linux/sched/types.h, 3.14; the
// clamps 5.3).
type SchedAttr struct {
	Size     uint32
	Policy   uint32
	Flags    uint64
	Nice     int32
	Priority uint32
	Runtime  uint64
	Deadline uint64
	Period   uint64
	UtilMin  uint32
	UtilMax  uint32
}

// SchedGetattr reads a thread's scheduling attributes (sched_getattr(2)).
func SchedGetattr(tid int) (a SchedAttr, err error) {
	a.Size = uint32(unsafe.Sizeof(a))
	_, _, e := unix.RawSyscall6(unix.SYS_SCHED_GETATTR, uintptr(tid), uintptr(unsafe.Pointer(&a)), uintptr(a.Size), 0, 0, 0)
	if e != 0 {
		return a, e
	}
	return a, nil
}

// SchedSetattr sets a thread's scheduling attributes.
func SchedSetattr(tid int, a *SchedAttr) error {
	a.Size = uint32(unsafe.Sizeof(*a))
	_, _, e := unix.RawSyscall(unix.SYS_SCHED_SETATTR, uintptr(tid), uintptr(unsafe.Pointer(a)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// SchedAffinity reads a thread's CPU mask as the kernel gives it, in bytes.
func SchedAffinity(tid int) ([]byte, error) {
	var b [1024]byte
	n, _, e := unix.RawSyscall(unix.SYS_SCHED_GETAFFINITY, uintptr(tid), uintptr(len(b)), uintptr(unsafe.Pointer(&b)))
	if e != 0 {
		return nil, e
	}
	return append([]byte(nil), b[:n]...), nil
}

// SetSchedAffinity sets a thread's CPU mask.
func SetSchedAffinity(tid int, mask []byte) error {
	_, _, e := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, uintptr(tid), uintptr(len(mask)), uintptr(unsafe.Pointer(&mask[0])))
	if e != 0 {
		return e
	}
	return nil
}

// IoprioGet reads a thread's I/O priority (ioprio_get(2), IOPRIO_WHO_PROCESS).
func IoprioGet(tid int) (int, error) {
	r, _, e := unix.RawSyscall(unix.SYS_IOPRIO_GET, 1, uintptr(tid), 0)
	if e != 0 {
		return 0, e
	}
	return int(r), nil
}

// IoprioSet sets a thread's I/O priority.
func IoprioSet(tid, prio int) error {
	_, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, 1, uintptr(tid), uintptr(prio))
	if e != 0 {
		return e
	}
	return nil
}

// Tgkill sends a signal to one thread.
func Tgkill(tgid, tid, sig int) error { return unix.Tgkill(tgid, tid, unix.Signal(sig)) }

// ChildSubreaper tells whether this process is a subreaper (prctl(2),
// PR_GET_CHILD_SUBREAPER, Linux 3.4).
func ChildSubreaper() (bool, error) {
	var v int32
	_, _, e := unix.Syscall6(unix.SYS_PRCTL, unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&v)), 0, 0, 0, 0)
	if e != 0 {
		return false, e
	}
	return v != 0, nil
}

// Mlock2 locks memory (mlock2(2), Linux 4.4).
func Mlock2(b []byte, flags int) error {
	_, _, e := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags))
	if e != 0 {
		return e
	}
	return nil
}
