package sys

import "golang.org/x/sys/unix"

// Terminal requests (ioctl_tty(2)). The settings of a pty's line are those of
// its slave, whichever end is asked.

// Termios reads a terminal's line settings (TCGETS2).
func Termios(fd int) (*unix.Termios, error) { return unix.IoctlGetTermios(fd, unix.TCGETS2) }

// SetTermios sets them at once and leaves what is queued (TCSETS2).
func SetTermios(fd int, t *unix.Termios) error { return unix.IoctlSetTermios(fd, unix.TCSETS2, t) }

// LockedTermios reads which settings cannot be changed (TIOCGLCKTRMIOS).
func LockedTermios(fd int) (*unix.Termios, error) {
	return unix.IoctlGetTermios(fd, unix.TIOCGLCKTRMIOS)
}

// SetLockedTermios sets that; it needs CAP_SYS_ADMIN or, since Linux 5.9,
// CAP_CHECKPOINT_RESTORE.
func SetLockedTermios(fd int, t *unix.Termios) error {
	return unix.IoctlSetTermios(fd, unix.TIOCSLCKTRMIOS, t)
}

// PtyPeer opens the slave of a pty's master (TIOCGPTPEER, Linux 4.13),
// close-on-exec, with flags of open(2) but O_CLOEXEC: the request would leave
// that in the status flags, for fcntl(F_GETFL) to show.
func PtyPeer(master, flags int) (int, error) {
	for {
		n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, uintptr(flags&^unix.O_CLOEXEC))
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return -1, e
		}
		unix.CloseOnExec(int(n))
		return int(n), nil
	}
}

// TerminalDevice gives the device number of the terminal that a descriptor is
// of, in the form of stat(2): also through /dev/tty and /dev/console
// (TIOCGDEV, Linux 2.6.37).
func TerminalDevice(fd int) (uint64, error) {
	v, err := unix.IoctlGetUint32(fd, unix.TIOCGDEV)
	return uint64(v), err
}
