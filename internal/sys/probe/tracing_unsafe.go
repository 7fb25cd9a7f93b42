package probe

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// ptraceGet makes a ptrace request whose data argument is a buffer that the
// kernel fills with at most len(buf) bytes (addr carries that length).
// Sound: buf is kept alive by the pointer conversion in the call itself.
func ptraceGet(req, pid int, addr uintptr, buf []byte) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(pid), addr, uintptr(unsafe.Pointer(&buf[0])), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// ptraceSet makes a ptrace request with plain numbers.
func ptraceSet(req, pid int, addr, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(pid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
