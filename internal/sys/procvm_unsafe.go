package sys

import (
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadMem copies len(b) bytes at addr of a task's memory into b with
// process_vm_readv(2). A short copy is an error.
func ReadMem(pid int, addr uint64, b []byte) error {
	return vm(unix.SYS_PROCESS_VM_READV, pid, addr, b)
}

// WriteMem is ReadMem the other way; the pages must be writable for the task.
func WriteMem(pid int, addr uint64, b []byte) error {
	return vm(unix.SYS_PROCESS_VM_WRITEV, pid, addr, b)
}

func vm(nr uintptr, pid int, addr uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	l := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	r := unix.RemoteIovec{Base: uintptr(addr), Len: len(b)}
	n, _, e := unix.Syscall6(nr, uintptr(pid), uintptr(unsafe.Pointer(&l)), 1, uintptr(unsafe.Pointer(&r)), 1, 0)
	if e != 0 {
		return e
	}
	if int(n) != len(b) {
		return fmt.Errorf("%d of %d bytes at %#x: %w", n, len(b), addr, io.ErrUnexpectedEOF)
	}
	return nil
}

// Range is a piece of a task's address space, in bytes.
type Range struct{ Addr, Len uint64 }

// ReadMemV fills b from the ranges one after another (at most 1024,
// IOV_MAX); their lengths must add up to len(b). It gives the bytes copied.
func ReadMemV(pid int, b []byte, ranges []Range) (int, error) {
	return vmv(unix.SYS_PROCESS_VM_READV, pid, b, ranges)
}

// WriteMemV is ReadMemV the other way.
func WriteMemV(pid int, b []byte, ranges []Range) (int, error) {
	return vmv(unix.SYS_PROCESS_VM_WRITEV, pid, b, ranges)
}

func vmv(nr uintptr, pid int, b []byte, ranges []Range) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	l := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	// Range has the layout of struct iovec: an address and a length.
	n, _, e := unix.Syscall6(nr, uintptr(pid), uintptr(unsafe.Pointer(&l)), 1, uintptr(unsafe.Pointer(&ranges[0])), uintptr(len(ranges)), 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
