package sys

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MqAttr is struct mq_attr (include/uapi/linux/mqueue.h).
type MqAttr struct {
	Flags   int64
	MaxMsg  int64
	MsgSize int64
	CurMsgs int64
	_       [4]int64
}

// MqMagic is the file system's number of POSIX message queues
// (include/uapi/linux/magic.h has none; ipc/mqueue.c, MQUEUE_MAGIC).
const MqMagic = 0x19800202

// MqOpen opens a message queue (mq_open(3)); name has no slash. attr may be nil.
func MqOpen(name string, flags int, mode uint32, attr *MqAttr) (int, error) {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return -1, err
	}
	fd, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(p)), uintptr(flags|unix.O_CLOEXEC), uintptr(mode), uintptr(unsafe.Pointer(attr)), 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// MqUnlink removes a queue's name.
func MqUnlink(name string) error {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(p)), 0, 0); e != 0 {
		return e
	}
	return nil
}

// MqGetattr reads a queue's attributes (mq_getattr(3)).
func MqGetattr(fd int) (a MqAttr, err error) {
	if _, _, e := unix.Syscall(unix.SYS_MQ_GETSETATTR, uintptr(fd), 0, uintptr(unsafe.Pointer(&a))); e != 0 {
		err = e
	}
	return a, err
}

// past is a time limit that has passed: the call does not wait, whatever the
// flags of the description are.
var past = unix.Timespec{}

// MqSend sends a message; a full queue is ETIMEDOUT or EAGAIN.
func MqSend(fd int, msg []byte, priority uint32) error {
	_, _, e := unix.Syscall6(unix.SYS_MQ_TIMEDSEND, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(msg))), uintptr(len(msg)), uintptr(priority), uintptr(unsafe.Pointer(&past)), 0)
	runtime.KeepAlive(msg)
	if e != 0 {
		return fmt.Errorf("mq_send of %d bytes: %w", len(msg), e)
	}
	return nil
}

// MqReceive takes a message; an empty queue is ETIMEDOUT or EAGAIN.
func MqReceive(fd int, b []byte) (n int, priority uint32, err error) {
	r, _, e := unix.Syscall6(unix.SYS_MQ_TIMEDRECEIVE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(unsafe.Pointer(&priority)), uintptr(unsafe.Pointer(&past)), 0)
	if e != 0 {
		return 0, 0, e
	}
	return int(r), priority, nil
}
