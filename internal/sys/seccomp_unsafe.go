package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ptraceSeccompFilter   = 0x420c // 4.4
	ptraceSeccompMetadata = 0x420d // 4.16
	maxFilter             = 4096   // BPF_MAXINSNS
)

// SeccompFilter reads filter number i of a stopped tracee, the oldest being 0,
// as the instructions it was given (struct sock_filter, 8 bytes each)
// (PTRACE_SECCOMP_GET_FILTER, Linux 4.4). Errors: ENOENT beyond the last one,
// EACCES without CAP_SYS_ADMIN in the initial namespace or when the caller is
// under seccomp itself, EMEDIUMTYPE when the kernel does not keep it.
func SeccompFilter(tid, i int) ([]byte, error) {
	b := make([]byte, 8*maxFilter)
	n, _, e := unix.RawSyscall6(unix.SYS_PTRACE, ptraceSeccompFilter, uintptr(tid), uintptr(i), uintptr(unsafe.Pointer(&b[0])), 0, 0)
	if e != 0 {
		return nil, e
	}
	return append([]byte(nil), b[:8*n]...), nil
}

// SeccompFlags reads the flags that filter i of a stopped tracee was installed
// with, as far as the kernel keeps them: SECCOMP_FILTER_FLAG_LOG
// (PTRACE_SECCOMP_GET_METADATA, Linux 4.16; 0 on older kernels).
func SeccompFlags(tid, i int) (uint64, error) {
	m := [2]uint64{uint64(i), 0} // struct seccomp_metadata
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, ptraceSeccompMetadata, uintptr(tid), unsafe.Sizeof(m), uintptr(unsafe.Pointer(&m)), 0, 0)
	if e == unix.EIO || e == unix.EINVAL {
		return 0, nil
	}
	if e != 0 {
		return 0, e
	}
	return m[1], nil
}
