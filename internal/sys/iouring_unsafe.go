package sys

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// io_uring (include/uapi/linux/io_uring.h). Flags of io_uring_setup(2):
const (
	UringIOPoll       = 1 << 0
	UringSQPoll       = 1 << 1
	UringSQAff        = 1 << 2
	UringCQSize       = 1 << 3
	UringClamp        = 1 << 4
	UringAttachWQ     = 1 << 5
	UringDisabled     = 1 << 6  // 5.10
	UringSQE128       = 1 << 10 // 5.19
	UringCQE32        = 1 << 11
	UringSingleIssuer = 1 << 12 // 6.0
	UringDeferTaskrun = 1 << 13 // 6.1
	UringNoMmap       = 1 << 14 // 6.5
	UringRegisteredFD = 1 << 15
	UringNoSQArray    = 1 << 16 // 6.6
	UringCQEMixed     = 1 << 18 // 6.18
	UringSQEMixed     = 1 << 19 // 6.19
)

// Where mmap(2) finds the parts of an instance.
const (
	UringRings   = 0
	UringCQRing  = 0x8000000
	UringEntries = 0x10000000
)

// Calls of io_uring_register(2), by number.
const (
	UringRegisterEventfd        = 4
	UringRegisterEventfdAsync   = 7
	UringRegisterFiles2         = 13
	UringRegisterFilesUpdate2   = 14
	UringRegisterBuffers2       = 15
	UringRegisterBuffersUpdate2 = 16
	UringRegisterMaxWorkers     = 19
	UringRegisterRingFDs        = 20
	UringRegisterAllocRange     = 25
	UringRegisterClock          = 29 // 6.12
	// UringSparse makes a table without entries (IORING_RSRC_REGISTER_SPARSE,
	// 5.19).
	UringSparse = 1
)

// Flags of io_uring_enter(2), and of an entry.
const (
	UringGetEvents = 1 << 0
	UringSQWakeup  = 1 << 1
	UringSkipCQE   = 1 << 6 // IOSQE_CQE_SKIP_SUCCESS, 5.17
)

// UringParams is struct io_uring_params as 32-bit words.
type UringParams [30]uint32

// Words of UringParams.
const (
	UringSQEntries = 0
	UringCQEntries = 1
	UringFlags     = 2
	UringCPU       = 3
	UringIdle      = 4
	UringSQHead    = 10
	UringSQTail    = 11
	UringDropped   = 15
	UringArray     = 16
	UringCQHead    = 20
	UringCQTail    = 21
	UringOverflow  = 24
	UringCQEs      = 25
	UringCQFlags   = 26
)

// UringEnter calls io_uring_enter(2) without a time limit or mask.
func UringEnter(fd int, submit, complete, flags uint32) (int, error) {
	n, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(fd), uintptr(submit), uintptr(complete), uintptr(flags), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// Words is memory that the kernel reads and writes at the same time, taken by
// 32-bit words. Offsets are in bytes.
type Words []byte

// MapUring maps a part of an instance into this process; unix.Munmap gives it
// back.
func MapUring(fd int, off int64, size int, write bool) (Words, error) {
	prot := unix.PROT_READ
	if write {
		prot |= unix.PROT_WRITE
	}
	b, err := unix.Mmap(fd, off, size, prot, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("mmap of an io_uring: %w", err)
	}
	return b, nil
}

func (w Words) at(off uint32) *uint32 {
	_ = w[off+3]
	return (*uint32)(unsafe.Pointer(&w[off])) // mappings begin at a page, offsets are multiples of 4
}

// Load reads a word.
func (w Words) Load(off uint32) uint32 { return atomic.LoadUint32(w.at(off)) }

// Store writes a word.
func (w Words) Store(off, v uint32) { atomic.StoreUint32(w.at(off), v) }

// Frame gives the number of the page frame that this process has at the
// beginning of b, 0 when there is none or it is not told.
func Frame(b []byte) (uint64, error) {
	return frameAt("/proc/self/pagemap", uint64(uintptr(unsafe.Pointer(&b[0]))))
}

// FrameOf gives the frame that a process has at an address.
func FrameOf(pid int, addr uint64) (uint64, error) {
	return frameAt(fmt.Sprintf("/proc/%d/pagemap", pid), addr)
}

func frameAt(name string, addr uint64) (uint64, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var e [1]uint64
	if err := ReadPagemap(fd, addr, e[:]); err != nil {
		return 0, err
	}
	if e[0]&PMPresent == 0 {
		return 0, nil
	}
	return e[0] & PMFrameMask, nil
}
