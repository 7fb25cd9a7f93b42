package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

type pmScanArg struct {
	size             uint64
	flags            uint64
	start, end       uint64
	walkEnd          uint64
	vec, vecLen      uint64
	maxPages         uint64
	categoryInverted uint64
	categoryMask     uint64
	categoryAnyof    uint64
	returnMask       uint64
}

const pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)

// ScanPages asks an open /proc/PID/pagemap for the runs of pages in
// [start,end) that s describes (PAGEMAP_SCAN, Linux 6.7; ENOTTY before). It
// fills buf and gives how many regions it used and where to go on; next == end
// when all was walked.
func ScanPages(fd int, start, end uint64, s PageScan, buf []PageRegion) (n int, next uint64, err error) {
	a := pmScanArg{
		size: uint64(unsafe.Sizeof(pmScanArg{})), flags: s.Flags,
		start: start, end: end, maxPages: s.Max,
		vec: uint64(uintptr(unsafe.Pointer(&buf[0]))), vecLen: uint64(len(buf)),
		categoryInverted: s.Inverted, categoryMask: s.All, categoryAnyof: s.Any, returnMask: s.Report,
	}
	r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&a)))
	if e != 0 {
		return 0, start, e
	}
	return int(r), a.walkEnd, nil
}

// ReadPagemap fills out with the entries of the pages from addr on.
func ReadPagemap(fd int, addr uint64, out []uint64) error {
	if len(out) == 0 {
		return nil
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&out[0])), len(out)*8)
	for off := 0; off < len(b); {
		n, err := unix.Pread(fd, b[off:], int64(addr/PageSize*8)+int64(off))
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EIO
		}
		off += n
	}
	return nil
}
