package sys

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// userfaultfd(2), from include/uapi/linux/userfaultfd.h (Linux 4.3). The
// descriptor belongs to the address space of the task that made it; whoever
// holds it can register areas there and fill them.
const (
	uffdioAPI        = 0xc018aa3f // _IOWR(0xAA, 0x3f, struct uffdio_api)
	uffdioRegister   = 0xc020aa00 // _IOWR(0xAA, 0x00, struct uffdio_register)
	uffdioUnregister = 0x8010aa01 // _IOR(0xAA, 0x01, struct uffdio_range)
	uffdioWake       = 0x8010aa02 // _IOR(0xAA, 0x02, struct uffdio_range)
	uffdioCopy       = 0xc028aa03 // _IOWR(0xAA, 0x03, struct uffdio_copy)
	uffdioZeropage   = 0xc020aa04 // _IOWR(0xAA, 0x04, struct uffdio_zeropage)
	uffdioProtect    = 0xc018aa06 // _IOWR(0xAA, 0x06, struct uffdio_writeprotect)

	// UffdioAPI and UffdioRegister are the requests for calls that a task makes
	// itself, with UffdEnableArg and UffdRegisterArg.
	UffdioAPI      = uffdioAPI
	UffdioRegister = uffdioRegister

	uffdAPI = 0xaa

	// UffdUserModeOnly is a flag of userfaultfd(2), Linux 5.11: faults of the
	// kernel on the task's behalf are not handled but fail, which everybody may
	// ask for.
	UffdUserModeOnly = 1
)

// Features of UFFDIO_API. The events stop the task until they were read.
const (
	UffdEventFork        = 1 << 1 // 4.11; needs CAP_SYS_PTRACE (5.4)
	UffdEventRemap       = 1 << 2 // 4.11
	UffdEventRemove      = 1 << 3 // 4.11
	UffdMissingHugetlbfs = 1 << 4 // 4.11
	UffdMissingShmem     = 1 << 5 // 4.11
	UffdEventUnmap       = 1 << 6 // 4.11
	// UffdWPAsync: the kernel itself lifts the protection of a page that is
	// written to; nobody is told, the page then counts as written (PageWritten).
	// With it areas of almost any kind can be registered with UffdWP.
	UffdWPAsync = 1 << 15 // 6.7
)

// Modes of UFFDIO_REGISTER: faults at pages that are not there, and at pages that
// are write-protected (5.7).
const (
	UffdMissing = 1 << 0
	UffdWP      = 1 << 1
)

// Kinds of UffdMsg.
const (
	UffdMsgPagefault = 0x12
	UffdMsgFork      = 0x13
	UffdMsgRemap     = 0x14
	UffdMsgRemove    = 0x15
	UffdMsgUnmap     = 0x16
)

// UffdMsg is struct uffd_msg: a fault or an event.
type UffdMsg struct {
	Event byte
	// Pagefault: flags and address. Fork: the child's userfaultfd. Remap: from,
	// to, length. Remove, Unmap: start and end.
	Arg [3]uint64
}

// uffdMsgSize is sizeof(struct uffd_msg), packed.
const uffdMsgSize = 32

// Userfaultfd makes one for the calling process.
func Userfaultfd(flags int) (int, error) {
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, uintptr(flags), 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// UffdEnable does the handshake, asking for features; EINVAL: the kernel lacks
// one, EPERM: the caller may not have one.
func UffdEnable(fd int, features uint64) error {
	a := [3]uint64{uffdAPI, features}
	return uffdIoctl(fd, uffdioAPI, unsafe.Pointer(&a))
}

// UffdRegister has faults in a range handled; mode is UffdMissing or UffdWP. It
// may span several areas. EBUSY: one belongs to another userfaultfd; EINVAL: there
// is none, or one that cannot be registered; ESRCH: the address space is gone.
func UffdRegister(fd int, start, n, mode uint64) error {
	a := [4]uint64{start, n, mode}
	return uffdIoctl(fd, uffdioRegister, unsafe.Pointer(&a))
}

// UffdEnableArg gives the argument of UffdEnable as the kernel takes it (struct
// uffdio_api).
func UffdEnableArg(features uint64) []byte {
	b := binary.NativeEndian.AppendUint64(make([]byte, 0, 24), uffdAPI)
	return binary.NativeEndian.AppendUint64(b, features)[:24]
}

// UffdRegisterArg gives the argument of UffdRegister (struct uffdio_register).
func UffdRegisterArg(start, n, mode uint64) []byte {
	b := binary.NativeEndian.AppendUint64(make([]byte, 0, 32), start)
	b = binary.NativeEndian.AppendUint64(b, n)
	return binary.NativeEndian.AppendUint64(b, mode)[:32]
}

// UffdUnregister ends that, and wakes who waits there.
func UffdUnregister(fd int, start, n uint64) error {
	a := [2]uint64{start, n}
	return uffdIoctl(fd, uffdioUnregister, unsafe.Pointer(&a))
}

// UffdProtect protects the pages of a range from writing, or lifts that. The range
// must lie in areas that are registered with UffdWP; which userfaultfd did that the
// kernel does not ask.
func UffdProtect(fd int, start, n uint64, on bool) error {
	a := [3]uint64{start, n}
	if on {
		a[2] = 1 // UFFDIO_WRITEPROTECT_MODE_WP
	} else {
		a[2] = 2 // UFFDIO_WRITEPROTECT_MODE_DONTWAKE
	}
	return uffdIoctl(fd, uffdioProtect, unsafe.Pointer(&a))
}

// UffdWake wakes who waits for a page of a range.
func UffdWake(fd int, start, n uint64) error {
	a := [2]uint64{start, n}
	return uffdIoctl(fd, uffdioWake, unsafe.Pointer(&a))
}

// UffdCopy puts b at dst, whole pages that are missing there, and wakes who
// waits for them. It gives the bytes put, and with fewer than all the reason:
// EEXIST (that page is there already), EAGAIN (the address space is changing:
// an event is to be read first), ENOENT (nothing registered there), ESRCH (the
// address space is gone).
func UffdCopy(fd int, dst uint64, b []byte) (int, error) {
	a := [5]uint64{dst, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), uint64(len(b))}
	return uffdPut(fd, uffdioCopy, unsafe.Pointer(&a), &a[4])
}

// UffdZero is UffdCopy of zeros; EINVAL where only pages can be put (hugetlb).
func UffdZero(fd int, dst, n uint64) (int, error) {
	a := [4]uint64{dst, n}
	return uffdPut(fd, uffdioZeropage, unsafe.Pointer(&a), &a[3])
}

// uffdPut gives what the kernel has noted in done: bytes, or an error before
// the first.
func uffdPut(fd int, nr uintptr, arg unsafe.Pointer, done *uint64) (int, error) {
	err := uffdIoctl(fd, nr, arg)
	if n := int64(*done); err != nil && n > 0 {
		return int(n), err
	}
	if err != nil {
		return 0, err
	}
	return int(int64(*done)), nil
}

func uffdIoctl(fd int, nr uintptr, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), nr, uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// UffdRead reads what is queued, up to len(out) messages; EAGAIN: nothing.
func UffdRead(fd int, out []UffdMsg) (int, error) {
	buf := make([]byte, uffdMsgSize*len(out))
	n, err := unix.Read(fd, buf)
	if err != nil {
		return 0, err
	}
	n /= uffdMsgSize
	for i := range n {
		b := buf[i*uffdMsgSize:]
		out[i] = UffdMsg{Event: b[0]}
		for k := range out[i].Arg {
			out[i].Arg[k] = binary.NativeEndian.Uint64(b[8+8*k:])
		}
		if out[i].Event == UffdMsgFork {
			out[i].Arg[0] = uint64(binary.NativeEndian.Uint32(b[8:]))
		}
	}
	return n, nil
}
