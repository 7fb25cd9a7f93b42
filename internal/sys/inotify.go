package sys

import "golang.org/x/sys/unix"

const inotifyIocSetNextWD = 0x40044900 // _IOW('I', 0, __s32)

// SetNextWD sets the number that the next watch of an inotify instance gets, or
// the next free one above it (INOTIFY_IOC_SETNEXTWD,
// include/uapi/linux/inotify.h, Linux 4.18, needs CONFIG_CHECKPOINT_RESTORE:
// else ENOTTY).
func SetNextWD(fd, wd int) error { return unix.IoctlSetInt(fd, inotifyIocSetNextWD, wd) }
