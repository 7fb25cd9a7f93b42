// Package tiny makes programs of some hundred bytes: a process that only waits
// for something needs neither a runtime nor memory.
package tiny

import "golang.org/x/sys/unix"

// Memfd gives a descriptor of a program that can be executed through it; -1
// where the machine has no such programs, or forbids executing what no file
// system has (vm.memfd_noexec).
func Memfd(name string, code []byte) int {
	elf := ELF(code)
	if elf == nil {
		return -1
	}
	// MFD_EXEC is older kernels' way anyway, and unknown to them.
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1
	}
	if n, err := unix.Write(fd, elf); err != nil || n != len(elf) {
		unix.Close(fd)
		return -1
	}
	return fd
}
