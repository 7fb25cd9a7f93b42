package probe

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pmScanArg is struct pm_scan_arg of uapi/linux/fs.h (6.7).
type pmScanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages       uint64
	categoryInverted, categoryMask, categoryAnyofMask, returnMask uint64
}

// procmapQuery is struct procmap_query of uapi/linux/fs.h (6.11).
type procmapQuery struct {
	size, queryFlags, queryAddr, vmaStart, vmaEnd, vmaFlags, vmaPageSize, vmaOffset, inode uint64
	devMajor, devMinor, vmaNameSize, buildIDSize                                           uint32
	vmaNameAddr, buildIDAddr                                                               uint64
}

// uffdioAPI is struct uffdio_api of uapi/linux/userfaultfd.h (4.3).
type uffdioAPI struct{ api, features, ioctls uint64 }

// ioctl makes one ioctl on a structure that holds no pointers of ours; p keeps
// it alive and, as Go does not move what a call's argument points to, in place.
func ioctl(fd int, req uintptr, p unsafe.Pointer) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(p))
	runtime.KeepAlive(p)
	return errOrNil(e)
}

// pagemapScanEmpty scans an empty range for present pages.
func pagemapScanEmpty(fd int) error {
	const pageIsPresent = 1 << 3 // PAGE_IS_PRESENT
	a := pmScanArg{categoryMask: pageIsPresent, returnMask: pageIsPresent}
	a.size = uint64(unsafe.Sizeof(a))
	return ioctl(fd, ioctlPagemapScan, unsafe.Pointer(&a))
}

// procmapQueryFirst asks for the area with the lowest address.
func procmapQueryFirst(fd int) error {
	const coveringOrNext = 0x10 // PROCMAP_QUERY_COVERING_OR_NEXT_VMA
	q := procmapQuery{queryFlags: coveringOrNext}
	q.size = uint64(unsafe.Sizeof(q))
	if err := ioctl(fd, ioctlProcmapQuery, unsafe.Pointer(&q)); err != nil {
		return err
	}
	if q.vmaEnd <= q.vmaStart {
		return fmt.Errorf("PROCMAP_QUERY gave the area %#x-%#x", q.vmaStart, q.vmaEnd)
	}
	return nil
}

// uffdFeatures asks a fresh userfaultfd what the kernel offers.
func uffdFeatures(fd int) (uint64, error) {
	const api = 0xaa // UFFD_API
	a := uffdioAPI{api: api}
	err := ioctl(fd, ioctlUffdAPI, unsafe.Pointer(&a))
	return a.features, err
}

// readOwnMemory copies src to dst by process_vm_readv(2) on this very process.
// Sound: both slices are live and pinned by the arguments of the call.
func readOwnMemory(dst, src []byte) (int, error) {
	var pin runtime.Pinner
	pin.Pin(&src[0])
	pin.Pin(&dst[0])
	defer pin.Unpin()
	local := []unix.Iovec{{Base: &dst[0]}}
	local[0].SetLen(len(dst))
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&src[0])), Len: len(src)}}
	return unix.ProcessVMReadv(os.Getpid(), local, remote, 0)
}

// pagemapEntry reads the pagemap's 64 bits about the page that holds page[0].
func pagemapEntry(fd int, page []byte) (uint64, error) {
	addr := uintptr(unsafe.Pointer(&page[0]))
	var bits uint64
	n, err := unix.Pread(fd, unsafe.Slice((*byte)(unsafe.Pointer(&bits)), 8), int64(addr)/int64(os.Getpagesize())*8)
	if err == nil && n != 8 {
		err = fmt.Errorf("%d bytes of pagemap", n)
	}
	return bits, err
}

// mmMapSize asks for the size of struct prctl_mm_map: it is refused where the
// kernel has no PR_SET_MM_MAP, needs no privilege and changes nothing.
func mmMapSize() (uint32, error) {
	var n uint32
	_, _, e := unix.Syscall6(unix.SYS_PRCTL, unix.PR_SET_MM, unix.PR_SET_MM_MAP_SIZE, uintptr(unsafe.Pointer(&n)), 0, 0, 0)
	return n, errOrNil(e)
}
