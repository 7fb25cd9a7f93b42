package sys

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// HasLandlock tells whether the kernel has Landlock and uses it
// (landlock_create_ruleset(2), Linux 5.13).
func HasLandlock() bool {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	n, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	return e == 0 && n > 0
}

// LandlockSelf restricts the calling thread for ever: it may make no block
// device.
func LandlockSelf() error {
	handled := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK) // struct landlock_ruleset_attr of the first version
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&handled)), 8, 0)
	if e != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", e)
	}
	defer unix.Close(int(fd))
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", e)
	}
	return nil
}
