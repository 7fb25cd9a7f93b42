package procfs

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// ReadChildren gives the children of one thread of a process (tid 0: of its
// leader), in the order in which they were born. Only while the whole tree is
// stopped is the list complete (proc_pid_task(5)).
func ReadChildren(pid, tid int) ([]int, error) {
	if tid == 0 {
		tid = pid
	}
	return parseFile(pid, tid, "children", stream, ParseChildren)
}

// ParseChildren parses a children file: numbers with a space behind each.
func ParseChildren(b []byte) ([]int, error) {
	s := scanner{b: b}
	var out []int
	for !s.done() && !s.bad {
		out = append(out, s.int())
		s.blanks()
	}
	if s.bad {
		return nil, badLine("children", b)
	}
	return out, nil
}

// ReadCmdline gives the arguments of a process; none for a zombie or a kernel
// thread. It is the process's own memory: it can hold anything.
func ReadCmdline(pid int) ([]string, error) {
	return parseFile(pid, 0, "cmdline", stream, ParseCmdline)
}

// ParseCmdline splits at the NUL behind each argument.
func ParseCmdline(b []byte) ([]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	return strings.Split(string(bytes.TrimSuffix(b, []byte{0})), "\x00"), nil
}

// ReadComm gives the name of a thread (tid 0: of the leader).
func ReadComm(pid, tid int) (string, error) {
	return parseFile(pid, tid, "comm", whole, ParseComm)
}

// ParseComm removes the newline behind the name; the name may hold others.
func ParseComm(b []byte) (string, error) {
	name, ok := bytes.CutSuffix(b, []byte{'\n'})
	if !ok {
		return "", badLine("comm", b)
	}
	return string(name), nil
}

// ReadAuxv gives the auxiliary vector of a process as the kernel saved it at
// execve: pairs of type and value, the last of which is AT_NULL. A task without
// an address space has none.
func ReadAuxv(pid int) ([]uint64, error) {
	return noneWithoutMM(parseFile(pid, 0, "auxv", stream, ParseAuxv))
}

// ParseAuxv parses the auxiliary vector of a 64-bit process in the byte order
// of this machine.
func ParseAuxv(b []byte) ([]uint64, error) {
	if len(b)%16 != 0 {
		return nil, badLine("auxv: not pairs of 64-bit words", b)
	}
	if len(b) == 0 {
		return nil, nil
	}
	out := make([]uint64, 0, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		out = append(out, binary.NativeEndian.Uint64(b))
	}
	return out, nil
}

// Syscall is /proc/PID/task/TID/syscall: what the thread is blocked in
// (proc_pid_syscall(5)). It needs the right to trace.
type Syscall struct {
	Running bool // it is on a CPU or ready to run, and nothing else is known
	Nr      int  // -1 when it is blocked, but not in a system call
	Args    [6]uint64
	SP, PC  uint64
}

// ReadSyscall reads the syscall file of a thread (tid 0: of the leader).
func ReadSyscall(pid, tid int) (Syscall, error) {
	return parseFile(pid, tid, "syscall", whole, ParseSyscall)
}

// ParseSyscall parses "running", "nr args sp pc" or "-1 sp pc".
func ParseSyscall(b []byte) (Syscall, error) {
	var c Syscall
	s := scanner{b: b}
	if s.prefix("running") {
		c.Running = true
		if !s.done() {
			return Syscall{}, badLine("syscall", b)
		}
		return c, nil
	}
	c.Nr = s.int()
	if c.Nr >= 0 {
		for i := range c.Args {
			s.blanks()
			c.Args[i] = s.hex0x()
		}
	}
	s.blanks()
	c.SP = s.hex0x()
	s.blanks()
	c.PC = s.hex0x()
	if s.bad || !s.done() {
		return Syscall{}, badLine("syscall", b)
	}
	return c, nil
}

// ReadSchedExecStart gives when the scheduler last accounted for a thread (tid
// 0: the leader), in nanoseconds of its own clock since boot: as long as it
// does not change, the thread has not run. The file exists where the kernel has
// CONFIG_SCHED_DEBUG (since 6.15: always, with CONFIG_PROC_FS), else the error
// is fs.ErrNotExist and not ErrGone.
func ReadSchedExecStart(pid, tid int) (int64, error) {
	return parseFile(pid, tid, "sched", whole, ParseSchedExecStart)
}

// ParseSchedExecStart finds "se.exec_start : milliseconds.nanoseconds".
func ParseSchedExecStart(b []byte) (int64, error) {
	key := []byte("\nse.exec_start")
	// The first line has the thread's name, which can hold the key: the real
	// one follows the ruler. A name that holds both shortens nothing either,
	// as it is at most 63 bytes and the ruler is longer.
	at := bytes.Index(b, []byte("\n-----------------------------------------------------------------"))
	if at < 0 {
		return 0, badLine("sched", b)
	}
	i := bytes.Index(b[at:], key)
	if i < 0 {
		return 0, badLine("sched: no exec_start", b)
	}
	s := scanner{b: b[at:]}
	s.i = i + len(key)
	s.blanks()
	s.lit(':')
	s.blanks()
	neg := s.try('-')
	ms := s.dec()
	s.lit('.')
	start := s.i
	ns := s.dec()
	const mostMS = 1<<63/1000000 - 1
	if s.bad || s.i-start != 6 || ms > mostMS {
		return 0, badLine("sched", b[at+i+1:])
	}
	v := int64(ms)*1000000 + int64(ns)
	if neg {
		v = -v
	}
	return v, nil
}
