package procfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// readNumbers gives the names of a directory below /proc/PID that are numbers,
// in numeric order.
func readNumbers(pid, tid int, name string) ([]int, error) {
	p := path(pid, tid, name)
	out, err := numbersIn(p)
	if errors.Is(err, ErrFormat) {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	if err != nil {
		return nil, taskError(pid, tid, p, err)
	}
	return out, nil
}

// numbersIn lists any directory. The kernel gives descriptors in order, threads
// in the order of their list.
func numbersIn(dir string) ([]int, error) {
	fd, err := openRead(dir, syscall.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	buf := buffers.Get().(*[]byte)
	defer putBuffer(buf)
	b := (*buf)[:cap(*buf)]
	var out []int
	for {
		n, err := syscall.ReadDirent(fd, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		if out, err = parseDirents(b[:n], out); err != nil {
			return nil, err
		}
	}
	slices.Sort(out)
	// Threads that come and go between two reads of the directory may be
	// listed twice.
	return slices.Compact(out), nil
}

// parseDirents appends the numeric names in a buffer of getdents64: records of
// ino u64, off s64, reclen u16, type u8, name (struct linux_dirent64 of
// include/linux/dirent.h).
func parseDirents(b []byte, out []int) ([]int, error) {
	const nameAt = 19
	for len(b) > 0 {
		if len(b) < nameAt {
			return nil, badLine("directory entry", b)
		}
		n := int(binary.NativeEndian.Uint16(b[16:]))
		if n < nameAt || n > len(b) {
			return nil, badLine("directory entry", b)
		}
		s := scanner{b: b[nameAt:n]}
		b = b[n:]
		v := s.dec32()
		if s.bad || s.i >= len(s.b) || s.b[s.i] != 0 || v > 1<<31-1 {
			continue // "." and "..", or the names of other directories
		}
		out = append(out, int(v))
	}
	return out, nil
}

// ReadTasks gives the ids of the threads of a process, sorted. A zombie whose
// threads have all ended still has its own id here.
func ReadTasks(pid int) ([]int, error) { return readNumbers(pid, 0, "task") }

// ReadFDs gives the numbers of the open descriptors of a process, sorted; of a
// zombie there are none (or, for an ordinary user, fs.ErrPermission). A reader of its own descriptors also sees the one that
// it reads with. It needs the right to trace the process.
func ReadFDs(pid int) ([]int, error) { return readNumbers(pid, 0, "fd") }

// ReadTaskFDs is ReadFDs for one thread, which may have a descriptor table of
// its own (clone without CLONE_FILES, unshare).
func ReadTaskFDs(pid, tid int) ([]int, error) { return readNumbers(pid, tid, "fd") }

// ReadLink gives what /proc/PID/fd/FD points to: a path as the reader would see
// it, with " (deleted)" after it when the name is gone, or a name such as
// "pipe:[123]" or "anon_inode:[eventpoll]". A descriptor that is not open, of a
// task that exists, is fs.ErrNotExist and not ErrGone.
func ReadLink(pid, fd int) (string, error) { return ReadTaskLink(pid, 0, fd) }

// ReadTaskLink is ReadLink in the descriptor table of one thread.
func ReadTaskLink(pid, tid, fd int) (string, error) {
	return readLink(pid, tid, numbered("fd/", fd))
}

// ReadExe gives the path of the program that a task runs, as ReadLink does; it
// is fs.ErrNotExist, and not ErrGone, for a kernel thread or a zombie.
func ReadExe(pid, tid int) (string, error) { return readLink(pid, tid, "exe") }

// ReadCwd gives the working directory of a task as the reader would see it.
func ReadCwd(pid, tid int) (string, error) { return readLink(pid, tid, "cwd") }

// ReadRoot gives the root directory of a task as the reader would see it.
func ReadRoot(pid, tid int) (string, error) { return readLink(pid, tid, "root") }

// namespaces are the links below ns; time and time_for_children since 5.6.
var namespaces = [...]string{
	"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children",
	"time", "time_for_children", "user", "uts",
}

// ReadNamespaces gives the namespaces of a task by the name of the link below
// ns ("mnt", "pid_for_children", …) as the inode numbers in "mnt:[4026531832]".
// Kinds that the kernel lacks, and pid_for_children while it has no first
// process yet, are left out.
func ReadNamespaces(pid, tid int) (map[string]uint64, error) {
	out := make(map[string]uint64, len(namespaces))
	for _, name := range namespaces {
		ino, err := ReadNamespace(pid, tid, name)
		if isAbsent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[name] = ino
	}
	return out, nil
}

// ReadNamespace gives the inode number of one namespace of a task, by the name
// of the link below ns. Reading all of them costs ten times as much.
func ReadNamespace(pid, tid int, kind string) (uint64, error) {
	text, err := readLink(pid, tid, "ns/"+kind)
	if err != nil {
		return 0, err
	}
	ino, err := ParseNamespace([]byte(text))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path(pid, tid, "ns/"+kind), err)
	}
	return ino, nil
}

// ParseNamespace gives the inode number in the text of a namespace link,
// "kind:[number]".
func ParseNamespace(b []byte) (uint64, error) {
	s := scanner{b: b}
	s.until(':')
	s.lit('[')
	ino := s.dec()
	s.lit(']')
	if s.bad || s.i != len(b) {
		return 0, badLine("namespace", b)
	}
	return ino, nil
}
