package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const tfdIocSetTicks = 0x40085400 // _IOW('T', 0, __u64)

// SetTimerfdTicks sets how many expirations of a timerfd wait to be read
// (TFD_IOC_SET_TICKS, include/uapi/linux/timerfd.h, Linux 3.17, needs
// CONFIG_CHECKPOINT_RESTORE). It must follow timerfd_settime, which clears
// them; 0 is EINVAL.
func SetTimerfdTicks(fd int, ticks uint64) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), tfdIocSetTicks, uintptr(unsafe.Pointer(&ticks)))
	if e != 0 {
		return e
	}
	return nil
}
