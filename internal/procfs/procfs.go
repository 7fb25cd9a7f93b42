// Package procfs turns the kernel's files below /proc into plain values.
//
// Every file has two functions: ParseX, a pure function from bytes to a value
// (fuzzed, with goldens from several kernels), and ReadX, which opens the file
// of one task and hands its bytes to ParseX. Parsers accept keys and lines that
// they do not know, because kernels add some in most releases, and keep them
// only where the documentation of the value says so; a line that they do know
// and cannot understand is ErrFormat.
//
// Nothing returned refers to the buffer that was parsed.
//
// In all functions pid is a thread group's id and tid a thread's, both as seen
// in the pid namespace that /proc was mounted for; tid 0 means the file of the
// thread group itself, /proc/PID/NAME in place of /proc/PID/task/TID/NAME.
//
// Many of the files need the right to trace the task (ptrace(2), "access mode
// checking"), else the error is fs.ErrPermission. A zombie has no owner in this
// sense: an ordinary user gets fs.ErrPermission for the fd directory, auxv and
// links even of his own, so look at the state first.
//
// The formats are those of proc(5) and of the kernel's fs/proc, from Linux 5.15
// on; what a newer kernel added is said at each field.
package procfs

import (
	"errors"
	"fmt"
)

var (
	// ErrGone says that the task does not exist (any more). The error that
	// carries it also matches the kernel's own, syscall.ENOENT
	// (fs.ErrNotExist) or syscall.ESRCH.
	ErrGone = errors.New("no such task")

	// ErrNoMM says that the task exists but has no address space: a zombie or
	// a kernel thread.
	ErrNoMM = errors.New("task has no address space")

	// ErrFormat says that the kernel's text is not what the parser knows.
	ErrFormat = errors.New("unexpected format")
)

// badLine makes an ErrFormat that quotes the line (or what there is of it).
func badLine(what string, line []byte) error {
	const most = 120
	dots := ""
	if len(line) > most {
		line, dots = line[:most], "…"
	}
	return fmt.Errorf("%s: %w: %q%s", what, ErrFormat, line, dots)
}
