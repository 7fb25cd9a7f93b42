package sys

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const kcmpEpollTfd = 7

// kcmpEpollSlot is struct kcmp_epoll_slot (include/uapi/linux/kcmp.h).
type kcmpEpollSlot struct{ efd, tfd, toff uint32 }

// KcmpEpollTarget compares descriptor fd of a task with a member of an epoll
// instance that has descriptor epfd in task epid: the toff-th of those that were
// added under the number tfd, in the order of fdinfo (kcmp(2), KCMP_EPOLL_TFD,
// Linux 4.13). The result is as Kcmp's. EBADF: the task has no such
// descriptor; ENOENT: no such member.
func KcmpEpollTarget(pid, fd, epid, epfd, tfd, toff int) (int, error) {
	s := kcmpEpollSlot{uint32(epfd), uint32(tfd), uint32(toff)}
	r, _, e := unix.RawSyscall6(unix.SYS_KCMP, uintptr(pid), uintptr(epid), kcmpEpollTfd, uintptr(fd), uintptr(unsafe.Pointer(&s)), 0)
	if e != 0 {
		return 0, e
	}
	return int(r), nil
}

// EpollEventSize is the size of struct epoll_event, packed on x86-64 only.
const EpollEventSize = int(unsafe.Sizeof(unix.EpollEvent{}))

const epollDataOff = int(unsafe.Offsetof(unix.EpollEvent{}.Fd))

// PutEpollEvent writes a struct epoll_event of EpollEventSize bytes.
func PutEpollEvent(b []byte, events uint32, data uint64) {
	binary.NativeEndian.PutUint32(b, events)
	binary.NativeEndian.PutUint64(b[epollDataOff:], data)
}

// EpollEventData reads a struct epoll_event.
func EpollEventData(b []byte) (events uint32, data uint64) {
	return binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint64(b[epollDataOff:])
}

// EpollParams is struct epoll_params (include/uapi/linux/eventpoll.h): how an
// epoll instance polls network devices.
type EpollParams struct {
	BusyPollUsecs  uint32
	BusyPollBudget uint16
	PreferBusyPoll uint8
	pad            uint8 // must be 0
}

const (
	epiocSParams = 0x40088a01 // _IOW(0x8a, 1, struct epoll_params)
	epiocGParams = 0x80088a02
)

// GetEpollParams reads an epoll instance's parameters (EPIOCGPARAMS, Linux 6.9,
// CONFIG_NET_RX_BUSY_POLL; EINVAL or ENOTTY where there are none).
func GetEpollParams(fd int) (p EpollParams, err error) {
	if _, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), epiocGParams, uintptr(unsafe.Pointer(&p))); e != 0 {
		return p, e
	}
	return p, nil
}

// SetEpollParams sets them (EPIOCSPARAMS). A budget above 64 needs
// CAP_NET_ADMIN.
func SetEpollParams(fd int, p EpollParams) error {
	p.pad = 0
	if _, _, e := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), epiocSParams, uintptr(unsafe.Pointer(&p))); e != 0 {
		return e
	}
	return nil
}
