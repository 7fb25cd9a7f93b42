package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket calls in their raw form: addresses as the bytes the kernel keeps (an
// abstract name may hold NULs, which x/sys cuts off), options as the bytes that
// getsockopt(2) gives.

// maxSockaddr is sizeof(struct sockaddr_storage) (include/uapi/linux/socket.h).
const maxSockaddr = 128

// Getsockopt reads an option into b and gives how many bytes the kernel filled
// (for SO_GET_FILTER: how many instructions there are).
func Getsockopt(fd, level, name int, b []byte) (int, error) {
	n := uint32(len(b))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// Setsockopt sets an option to the bytes of b.
func Setsockopt(fd, level, name int, b []byte) error {
	_, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0)
	if e != 0 {
		return e
	}
	return nil
}

// filterSize is sizeof(struct sock_filter) (include/uapi/linux/filter.h).
const filterSize = 8

// GetFilter reads the classic BPF program attached to a socket, 8 bytes an
// instruction; none when there is none (SO_GET_FILTER, Linux 3.8). EACCES means
// that the program is not classic BPF.
func GetFilter(fd int) ([]byte, error) {
	n, err := Getsockopt(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER, nil)
	if err != nil || n == 0 {
		return nil, err
	}
	b := make([]byte, n*filterSize)
	l := uint32(n) // counted in instructions
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(&l)), 0)
	if e != 0 {
		return nil, e
	}
	return b[:int(l)*filterSize], nil
}

// SetFilter attaches a classic BPF program, 8 bytes an instruction
// (SO_ATTACH_FILTER).
func SetFilter(fd int, prog []byte) error {
	if len(prog) < filterSize {
		return unix.EINVAL
	}
	p := struct { // struct sock_fprog
		n      uint16
		filter *byte
	}{uint16(len(prog) / filterSize), unsafe.SliceData(prog)}
	_, _, e := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, uintptr(unsafe.Pointer(&p)), unsafe.Sizeof(p), 0)
	if e != 0 {
		return e
	}
	return nil
}

// Sockname gives a socket's own address as the kernel keeps it (getsockname(2)),
// family included; two bytes for a unix socket without a name.
func Sockname(fd int) ([]byte, error) { return name(unix.SYS_GETSOCKNAME, fd) }

// Peername gives the address of a socket's peer (getpeername(2)).
func Peername(fd int) ([]byte, error) { return name(unix.SYS_GETPEERNAME, fd) }

func name(nr uintptr, fd int) ([]byte, error) {
	var b [maxSockaddr]byte
	n := uint32(len(b))
	_, _, e := unix.RawSyscall(nr, uintptr(fd), uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)))
	if e != 0 {
		return nil, e
	}
	return append([]byte(nil), b[:min(int(n), len(b))]...), nil
}

// Bind is bind(2) with the bytes of a sockaddr.
func Bind(fd int, sa []byte) error {
	_, _, e := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
	if e != 0 {
		return e
	}
	return nil
}

// Connect is connect(2) with the bytes of a sockaddr.
func Connect(fd int, sa []byte) error {
	_, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(sa))), uintptr(len(sa)))
	if e != 0 {
		return e
	}
	return nil
}

// Received is what one recvmsg(2) filled of its buffers.
type Received struct {
	N     int // bytes of data (with MSG_TRUNC: of the message)
	OOB   int // bytes of ancillary data
	Name  int // bytes of the sender's address
	Flags int // MSG_ flags
}

// Recvmsg is recvmsg(2) into raw buffers, any of which may be nil.
func Recvmsg(fd int, data, oob, from []byte, flags int) (r Received, err error) {
	var iov unix.Iovec
	var msg unix.Msghdr
	msgOf(&msg, &iov, data, oob, from)
	n, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), uintptr(flags))
	if e != 0 {
		return r, e
	}
	return Received{N: int(n), OOB: int(msg.Controllen), Name: int(msg.Namelen), Flags: int(msg.Flags)}, nil
}

// Sendmsg is sendmsg(2) from raw buffers, any of which may be nil.
func Sendmsg(fd int, data, oob, to []byte, flags int) (int, error) {
	var iov unix.Iovec
	var msg unix.Msghdr
	msgOf(&msg, &iov, data, oob, to)
	n, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), uintptr(flags))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// msgOf fills a message header. The pointers it stores are to the callers'
// buffers, which their own slices keep alive and which, being reached through
// typed pointers, the collector knows.
func msgOf(msg *unix.Msghdr, iov *unix.Iovec, data, oob, name []byte) {
	iov.Base = unsafe.SliceData(data)
	iov.SetLen(len(data))
	msg.Iov = iov
	msg.SetIovlen(1)
	if len(oob) > 0 {
		msg.Control = unsafe.SliceData(oob)
		msg.SetControllen(len(oob))
	}
	if len(name) > 0 {
		msg.Name = unsafe.SliceData(name)
		msg.Namelen = uint32(len(name))
	}
}
