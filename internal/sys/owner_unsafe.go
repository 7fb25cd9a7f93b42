package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Owner is who gets a file's I/O signals, and which
// (F_GETOWN_EX 2.6.32, F_GETSIG, F_GETOWNER_UIDS 3.5; include/uapi/asm-generic/fcntl.h).
type Owner struct {
	Type   int // F_OWNER_TID 0, F_OWNER_PID 1, F_OWNER_PGRP 2
	PID    int // 0: nobody
	Signal int // 0: SIGIO without siginfo
	UID    uint32
	EUID   uint32
}

const (
	fSetSig       = 10
	fGetSig       = 11
	fSetownEx     = 15
	fGetownEx     = 16
	fGetownerUIDs = 17
)

type fownEx struct{ Type, PID int32 }

// GetOwner reads a descriptor's owner.
func GetOwner(fd int) (o Owner, err error) {
	var x fownEx
	if _, _, e := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), fGetownEx, uintptr(unsafe.Pointer(&x))); e != 0 {
		return o, e
	}
	o.Type, o.PID = int(x.Type), int(x.PID)
	s, _, e := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), fGetSig, 0)
	if e != 0 {
		return o, e
	}
	o.Signal = int(s)
	if o.PID == 0 {
		return o, nil
	}
	var ids [2]uint32
	if _, _, e := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), fGetownerUIDs, uintptr(unsafe.Pointer(&ids))); e == 0 {
		o.UID, o.EUID = ids[0], ids[1]
	}
	return o, nil
}
