package sys

import (
	"bytes"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// procmapQuery is struct procmap_query of uapi/linux/fs.h (6.11).
type procmapQuery struct {
	size, flags, addr             uint64
	start, end, vmFlags, pageSize uint64
	offset, inode                 uint64
	devMajor, devMinor            uint32
	nameSize, buildIDSize         uint32
	nameAddr, buildIDAddr         uint64
}

const procmapQueryReq = 0xc0686611 // _IOWR('f', 17, struct procmap_query)

// What PROCMAP_QUERY can be asked to look for (enum procmap_query_flags).
const (
	MapReadable   = 1 << 0
	MapExecutable = 1 << 2
	mapOrNext     = 1 << 4
)

// MapArea is an area of an address space, as PROCMAP_QUERY tells it.
type MapArea struct {
	Start, End         uint64
	Offset, Ino        uint64
	DevMajor, DevMinor uint32
	Name               string
}

// NextArea asks an open /proc/PID/maps for the first area that ends above addr and
// is what flags say (Linux 6.11; ENOTTY before). Behind the last it is ENOENT.
func NextArea(fd int, addr uint64, flags uint64) (MapArea, error) {
	var name [256]byte // of what is longer, the name is not wanted
	q := procmapQuery{flags: flags | mapOrNext, addr: addr, nameSize: uint32(len(name))}
	q.size = uint64(unsafe.Sizeof(q))
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&name)
	for {
		q.nameAddr = uint64(uintptr(unsafe.Pointer(&name)))
		if q.nameSize == 0 {
			q.nameAddr = 0
		}
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), procmapQueryReq, uintptr(unsafe.Pointer(&q)))
		if e == unix.ENAMETOOLONG && q.nameSize > 0 {
			q.nameSize = 0
			continue
		}
		if e != 0 {
			return MapArea{}, e
		}
		break
	}
	a := MapArea{Start: q.start, End: q.end, Offset: q.offset, Ino: q.inode, DevMajor: q.devMajor, DevMinor: q.devMinor}
	if q.nameSize > 0 {
		n, _, _ := bytes.Cut(name[:], []byte{0})
		a.Name = string(n)
	}
	return a, nil
}
