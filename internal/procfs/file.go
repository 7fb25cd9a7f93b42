package procfs

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
)

// A checkpoint reads a handful of small files for every task and one for every
// descriptor, so the reader uses the plain system calls: os.File would add a
// stat, a poller registration and a finaliser to each.

// buffers holds the reading buffers. Files below /proc have size 0 in stat and
// are often longer than a page, so a buffer grows as needed and is kept.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// keepBuffer is the largest buffer that goes back to the pool: 10,000 areas of
// smaps are 8 MiB, which nobody wants to keep for a 200-byte file.
const keepBuffer = 1 << 20

func putBuffer(p *[]byte) {
	if cap(*p) <= keepBuffer {
		buffers.Put(p)
	}
}

// shape says how much one read of a file may give.
type shape bool

const (
	// whole: the kernel produces the file as one record (single_open), so a
	// read that does not fill the buffer has given all of it.
	whole shape = true
	// stream: the kernel produces one record after the other and each read
	// ends where its page is full (seq_file), so only a read of 0 is the end.
	stream shape = false
)

// path gives /proc/PID/name or, with a tid, /proc/PID/task/TID/name.
func path(pid, tid int, name string) string {
	var a [96]byte
	b := append(a[:0], "/proc/"...)
	b = strconv.AppendInt(b, int64(pid), 10)
	if tid != 0 {
		b = append(b, "/task/"...)
		b = strconv.AppendInt(b, int64(tid), 10)
	}
	if name != "" {
		b = append(b, '/')
		b = append(b, name...)
	}
	return string(b)
}

// parseFile reads /proc/PID[/task/TID]/name and gives its bytes to parse, which
// must not keep them.
func parseFile[T any](pid, tid int, name string, sh shape, parse func([]byte) (T, error)) (T, error) {
	p := path(pid, tid, name)
	var zero T
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	if err := slurp(p, sh, buf); err != nil {
		return zero, taskError(pid, tid, p, err)
	}
	v, err := parse(*buf)
	if err != nil {
		return zero, fmt.Errorf("%s: %w", p, err)
	}
	return v, nil
}

// slurp reads the whole file into *buf, replacing its content and growing it.
func slurp(path string, sh shape, buf *[]byte) error {
	fd, err := openRead(path, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return slurpFD(fd, sh, buf)
}

func slurpFD(fd int, sh shape, buf *[]byte) error {
	b := (*buf)[:0]
	defer func() { *buf = b }()
	for {
		if cap(b)-len(b) < 4096 {
			b = append(make([]byte, 0, 2*cap(b)+8192), b...)
		}
		room := b[len(b):cap(b)]
		n, err := syscall.Read(fd, room)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return nil
		}
		b = b[:len(b)+n]
		if sh == whole && n < len(room) {
			return nil
		}
	}
}

func openRead(path string, flags int) (int, error) {
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC|flags, 0)
		if err != syscall.EINTR {
			return fd, err
		}
	}
}

// taskError wraps what failed on a file of a task. ESRCH always means that the
// task has gone or, for the files of an address space, that it has none; ENOENT
// means so too, unless the task is still there: then the file is one that this
// kernel does not have.
func taskError(pid, tid int, path string, err error) error {
	switch err {
	case syscall.ESRCH:
		if taskExists(pid, tid) {
			// Only files of an address space say so of a task that can be
			// seen; which ones do, and which are empty, differs by version.
			return fmt.Errorf("%s: %w (%w)", path, ErrNoMM, err)
		}
		return fmt.Errorf("%s: %w (%w)", path, ErrGone, err)
	case syscall.ENOENT:
		if !taskExists(pid, tid) {
			return fmt.Errorf("%s: %w (%w)", path, ErrGone, err)
		}
	}
	return fmt.Errorf("%s: %w", path, err)
}

func taskExists(pid, tid int) bool {
	var st syscall.Stat_t
	return syscall.Stat(path(pid, tid, ""), &st) == nil
}

// readLink gives the target of a symbolic link below /proc.
func readLink(pid, tid int, name string) (string, error) {
	p := path(pid, tid, name)
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	// The kernel builds the text of a magic link in one page, so the pool's
	// buffers are always large enough.
	b := (*buf)[:cap(*buf)]
	n, err := syscall.Readlink(p, b)
	if err != nil {
		return "", taskError(pid, tid, p, err)
	}
	return string(b[:n]), nil
}

// isAbsent says that the file does not exist although the task does.
func isAbsent(err error) bool {
	return errors.Is(err, syscall.ENOENT) && !errors.Is(err, ErrGone)
}

// fileError wraps what failed on a file that belongs to no task.
func fileError(path string, err error) error { return fmt.Errorf("%s: %w", path, err) }

// noneWithoutMM makes an empty list of ErrNoMM, as kernels do whose file is
// empty then.
func noneWithoutMM[T any](v []T, err error) ([]T, error) {
	if errors.Is(err, ErrNoMM) {
		return nil, nil
	}
	return v, err
}
