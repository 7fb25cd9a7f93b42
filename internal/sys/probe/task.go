package probe

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// askSetTID asks for a child with our own pid. The kernel checks the right to
// choose first (EPERM) and the number after it (EEXIST, for a pid in use), so
// that no child comes to be (kernel/pid.c, alloc_pid).
func askSetTID() Result {
	own, err1 := os.Readlink("/proc/self/ns/pid")
	kids, err2 := os.Readlink("/proc/self/ns/pid_for_children")
	if err := errors.Join(err1, err2); err != nil {
		return unsure("compare pid namespaces", err)
	}
	if own != kids {
		// Our number may be free in the other namespace.
		return Result{Unknown, "children of this process go to another pid namespace"}
	}
	// The thread's mount of /proc may show another namespace than getpid's: both
	// calls below are about the same one, so nothing depends on it.
	pid, err := cloneWithTID(os.Getpid())
	switch {
	case err == nil:
		reap(pid)
		return yes("")
	case errors.Is(err, unix.EEXIST):
		return yes("")
	}
	return byErrno("clone3", err)
}

// tryNamespaces starts a child with the given clone(2) and unshare(2) flags
// which then fails to execute an empty path: ENOENT says that all before it
// went well, and no program has run.
func tryNamespaces(clone, unshare uintptr) error {
	attr := &syscall.SysProcAttr{Cloneflags: clone, Unshareflags: unshare}
	if (clone|unshare)&unix.CLONE_NEWUSER != 0 {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	pid, err := syscall.ForkExec("", []string{"fermata-probe"}, &syscall.ProcAttr{Sys: attr})
	if err == nil {
		reap(pid)
		return nil
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// namespaceResult is byErrno plus the errors by which limits on namespaces speak.
func namespaceResult(err error) Result {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) {
		return no("the limit of namespaces is reached (user.max_*_namespaces)")
	}
	return byErrno("clone", err)
}

func askUserNS() Result {
	// The pid namespace shows that root of the new one has its rights; some
	// security modules allow the namespace and take them away.
	return namespaceResult(tryNamespaces(unix.CLONE_NEWUSER|unix.CLONE_NEWPID, 0))
}

func askPidNS() Result {
	err := tryNamespaces(unix.CLONE_NEWPID, 0)
	if errors.Is(err, unix.EPERM) && UserNS.Have() {
		return yes("with a user namespace")
	}
	return namespaceResult(err)
}

func askTimeNS() Result {
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		return byPath(err)
	}
	// clone(2) has no bit for it, unshare(2) has.
	return namespaceResult(tryNamespaces(0, unix.CLONE_NEWTIME))
}

func askKcmp() Result {
	const kcmpVM = 1 // KCMP_VM, uapi/linux/kcmp.h
	pid := uintptr(os.Getpid())
	_, _, e := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpVM, 0, 0, 0)
	return byErrno("kcmp", errOrNil(e))
}

func askPidfdGetfd() Result {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return byErrno("pidfd_open", fmt.Errorf("pidfd_open: %w", err))
	}
	defer unix.Close(fd)
	got, err := unix.PidfdGetfd(fd, fd, 0)
	if err == nil {
		unix.Close(got)
	}
	return byErrno("pidfd_getfd", err)
}

func askFutexWaitv() Result {
	// No futex at all is EINVAL where the call exists; where it does not, or a
	// filter forbids it, the answer is ENOSYS or EPERM.
	_, _, e := unix.Syscall6(unix.SYS_FUTEX_WAITV, 0, 0, 0, 0, 0, 0)
	if e == unix.EINVAL {
		return yes("")
	}
	return byErrno("futex_waitv", errOrNil(e))
}

func askTimerIDs() Result {
	// A setting of the process; asking for it changes nothing.
	err := unix.Prctl(unix.PR_TIMER_CREATE_RESTORE_IDS, unix.PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0)
	return byErrno("prctl", err)
}

// askExists judges by whether a path of /proc is there.
func askExists(path string) Result {
	_, err := os.Stat(path)
	if err != nil {
		return byPath(err)
	}
	return yes("")
}

// byPath judges an error about a path.
func byPath(err error) Result {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return no(err.Error())
	}
	return unsure("look", err)
}

// statusField gives one field of /proc/thread-self/status, "" when it is absent.
func statusField(name string) (string, error) {
	// Capabilities and seccomp belong to threads: read them where they are asked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", nil
}

// errOrNil turns a raw errno into an error.
func errOrNil(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}
