package probe

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The ptrace probes share one helper: a child that is stopped at its exec, let
// go into a group stop before its first own instruction, seized as fermata
// seizes a target, asked, and killed. It runs nothing, so any executable file
// will do; the caller's own is the one that is surely there.

// tracingAnswers are what one helper yields.
type tracingAnswers struct{ seize, sigmask, rseq, suspend, filter Result }

// tracing runs the helper once.
var tracing = sync.OnceValue(func() tracingAnswers {
	ch := make(chan tracingAnswers)
	go func() {
		// A tracee belongs to the thread that traces it. The thread is not
		// unlocked: it ends with the goroutine, and a tracee with it.
		runtime.LockOSThread()
		ch <- askTracing()
	}()
	return <-ch
})

// askTracing starts the helper and asks it everything.
func askTracing() tracingAnswers {
	all := func(r Result) tracingAnswers { return tracingAnswers{r, r, r, r, r} }
	pid, err := startStopped()
	if err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
			return all(no(err.Error()))
		}
		return all(unsure("start a helper", err))
	}
	defer reap(pid)
	if err := unix.PtraceSeize(pid); err != nil {
		return all(byErrno("PTRACE_SEIZE", fmt.Errorf("PTRACE_SEIZE: %w", err)))
	}
	// Seizing a stopped task traps it at once.
	if err := waitStop(pid); err != nil {
		return all(unsure("wait for the seized helper", err))
	}
	a := all(yes(""))
	var mask [8]byte
	a.sigmask = byErrno("PTRACE_GETSIGMASK", ptraceGet(unix.PTRACE_GETSIGMASK, pid, uintptr(len(mask)), mask[:]))
	var conf [64]byte
	// A kernel without the request answers EIO to it.
	a.rseq = ioMeansNo(ptraceGet(unix.PTRACE_GET_RSEQ_CONFIGURATION, pid, uintptr(len(conf)), conf[:]))
	suspend := ptraceSet(unix.PTRACE_SETOPTIONS, pid, 0, unix.PTRACE_O_SUSPEND_SECCOMP)
	a.suspend = ioMeansNo(suspend)
	// The helper has no filter, to which a kernel that would read one says
	// EINVAL; but so does one without the code, which gives itself away by the
	// same answer to PTRACE_O_SUSPEND_SECCOMP (both hang on one option). A
	// filter of ours, inherited by the helper, forbids it with EACCES.
	err = ptraceSet(unix.PTRACE_SECCOMP_GET_FILTER, pid, 0, 0)
	if errors.Is(err, unix.EINVAL) && !errors.Is(suspend, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = nil
	}
	a.filter = ioMeansNo(err)
	return a
}

// ioMeansNo is byErrno for ptrace, whose word for an unknown request is EIO.
func ioMeansNo(err error) Result {
	if errors.Is(err, unix.EIO) {
		return no("the kernel does not know this request")
	}
	return byErrno("ptrace", err)
}

// startStopped starts the helper and leaves it in a group stop, untraced.
func startStopped() (pid int, err error) {
	pid, err = syscall.ForkExec("/proc/self/exe", []string{"fermata-probe"}, &syscall.ProcAttr{
		Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start a traced process: %w", err)
	}
	defer func() {
		if err != nil {
			reap(pid)
		}
	}()
	if err := waitStop(pid); err != nil {
		return 0, err
	}
	if err := ptraceSet(unix.PTRACE_DETACH, pid, 0, uintptr(unix.SIGSTOP)); err != nil {
		return 0, fmt.Errorf("PTRACE_DETACH: %w", err)
	}
	return pid, waitStop(pid)
}

// waitStop waits until pid is stopped, for whatever reason.
func waitStop(pid int) error {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, unix.WUNTRACED|unix.WALL, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("wait for helper %d: %w", pid, err)
		case ws.Stopped():
			return nil
		default:
			return fmt.Errorf("helper %d ended (wait status %#x)", pid, int(ws))
		}
	}
}

// reap ends the helper and takes its exit status.
func reap(pid int) {
	unix.Kill(pid, unix.SIGKILL)
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, unix.WALL, nil)
		if err == unix.EINTR || err == nil && ws.Stopped() {
			continue
		}
		return
	}
}
