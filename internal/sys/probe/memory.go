package probe

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Numbers of uapi/linux/fs.h and uapi/linux/userfaultfd.h that x/sys lacks; the
// ioctl numbers are the ones of the generic encoding (x86, arm64, riscv).
const (
	ioctlPagemapScan  = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg), 6.7
	ioctlProcmapQuery = 0xc0686611 // _IOWR('f', 17, struct procmap_query), 6.11
	ioctlUffdAPI      = 0xc018aa3f // _IOWR(0xaa, 0x3f, struct uffdio_api), 4.3

	uffdUserModeOnly   = 1       // UFFD_USER_MODE_ONLY, 5.11
	uffdFeatureWPAsync = 1 << 15 // UFFD_FEATURE_WP_ASYNC, 6.7

	shmExec = 0o100000 // SHM_EXEC, uapi/linux/shm.h

	softDirtyBit = 1 << 55 // Documentation/admin-guide/mm/pagemap.rst
)

func askSysvShm() Result {
	// SHM_EXEC asks for the segment's execute permission, which root has anyway.
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, os.Getpagesize(), unix.IPC_CREAT|0o700)
	if err != nil {
		return byErrno("shmget", fmt.Errorf("shmget: %w", err))
	}
	defer unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	b, err := unix.SysvShmAttach(id, 0, shmExec)
	if err != nil {
		return byErrno("shmat", fmt.Errorf("shmat with SHM_EXEC: %w", err))
	}
	unix.SysvShmDetach(b)
	return yes("")
}

func askMemfdExec() Result {
	const mfdExec = 0x10 // MFD_EXEC, uapi/linux/memfd.h, 6.3
	fd, err := unix.MemfdCreate("fermata-probe", unix.MFD_CLOEXEC|mfdExec)
	if errors.Is(err, unix.EINVAL) {
		// Before 6.3 every memfd may be executed.
		fd, err = unix.MemfdCreate("fermata-probe", unix.MFD_CLOEXEC)
	}
	if err == nil {
		unix.Close(fd)
	}
	return byErrno("memfd_create", err)
}

func askProcessVM() Result {
	src, dst := []byte{0x5a}, []byte{0}
	n, err := readOwnMemory(dst, src)
	if err == nil && (n != 1 || dst[0] != 0x5a) {
		return no("reads wrong data")
	}
	return byErrno("process_vm_readv", err)
}

func askPagemapScan() Result {
	return onProcFile("/proc/self/pagemap", pagemapScanEmpty)
}

func askProcmapQuery() Result {
	return onProcFile("/proc/self/maps", procmapQueryFirst)
}

// onProcFile calls ask with a descriptor of a file below /proc.
func onProcFile(path string, ask func(fd int) error) Result {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return byPath(&os.PathError{Op: "open", Path: path, Err: err})
	}
	defer unix.Close(fd)
	return byErrno("ioctl", ask(fd))
}

// askUffd opens a userfaultfd with the given flags and looks for the features.
func askUffd(flags int, want uint64) Result {
	r, _, e := unix.Syscall(unix.SYS_USERFAULTFD, uintptr(unix.O_CLOEXEC|flags), 0, 0)
	if e != 0 {
		return byErrno("userfaultfd", e)
	}
	fd := int(r)
	defer unix.Close(fd)
	has, err := uffdFeatures(fd)
	if err != nil {
		return byErrno("UFFDIO_API", fmt.Errorf("UFFDIO_API: %w", err))
	}
	if has&want != want {
		return no(fmt.Sprintf("features %#x only", has))
	}
	return yes("")
}

// askSoftDirty writes to a fresh page: its bit is set where there are such
// bits, because new areas count as written.
func askSoftDirty() Result {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return unsure("mmap", err)
	}
	defer unix.Munmap(page)
	page[0] = 1
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return byPath(&os.PathError{Op: "open", Path: "/proc/self/pagemap", Err: err})
	}
	defer unix.Close(fd)
	bits, err := pagemapEntry(fd, page)
	if err != nil {
		return unsure("read pagemap", err)
	}
	if bits&softDirtyBit == 0 {
		return no("a written page is not marked")
	}
	return yes("")
}

// askMapFiles opens the file behind our own first file mapping.
func askMapFiles() Result {
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return unsure("read maps", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[5], "/") {
			continue
		}
		// maps pads addresses to eight digits, map_files does not.
		from, to, _ := strings.Cut(f[0], "-")
		path := "/proc/self/map_files/" + unpad(from) + "-" + unpad(to)
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
			return yes("")
		}
		return byPath(&os.PathError{Op: "open", Path: path, Err: err})
	}
	return Result{Unknown, "no mapped file to try"}
}

// unpad takes leading zeros from a hexadecimal number.
func unpad(s string) string {
	if t := strings.TrimLeft(s, "0"); t != "" {
		return t
	}
	return "0"
}

func askSetMMMap() Result {
	n, err := mmMapSize()
	if err == nil && n == 0 {
		return no("the structure has no size")
	}
	return byErrno("prctl", err)
}
