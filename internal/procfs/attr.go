package procfs

import "errors"

// ReadOOMScoreAdj gives /proc/PID/oom_score_adj, -1000 to 1000.
func ReadOOMScoreAdj(pid int) (int, error) {
	return parseFile(pid, 0, "oom_score_adj", whole, ParseInt)
}

// ReadLoginUID gives the audit login id of a process, ^uint32(0) when it is not
// set. Without CONFIG_AUDIT the error is fs.ErrNotExist and not ErrGone.
func ReadLoginUID(pid int) (uint32, error) {
	return parseFile(pid, 0, "loginuid", whole, ParseUint32)
}

// ReadPersonality gives the execution domain of a thread (tid 0: of the
// leader), see personality(2).
func ReadPersonality(pid, tid int) (uint32, error) {
	return parseFile(pid, tid, "personality", whole, ParseHex32)
}

// ReadTimerSlack gives the timer slack of a thread in nanoseconds; 0 for one
// with a real-time policy. The file exists only below /proc/TID, which the
// kernel serves for any thread. For another task it needs CAP_SYS_NICE.
func ReadTimerSlack(tid int) (uint64, error) {
	return parseFile(tid, 0, "timerslack_ns", whole, ParseUint)
}

// ReadCoredumpFilter gives the MMF_DUMP_* bits of a process, see core(5). It is
// ErrNoMM for a task without an address space.
func ReadCoredumpFilter(pid int) (uint32, error) {
	return parseFile(pid, 0, "coredump_filter", whole, func(b []byte) (uint32, error) {
		if len(b) == 0 {
			return 0, ErrNoMM
		}
		return ParseHex32(b)
	})
}

// ParseInt parses a file with one decimal number of the kernel's type int.
func ParseInt(b []byte) (int, error) { return number("number", b, (*scanner).int) }

// ParseUint parses a file with one unsigned decimal number.
func ParseUint(b []byte) (uint64, error) { return number("number", b, (*scanner).dec) }

// ParseUint32 parses a file with one unsigned decimal number of 32 bits.
func ParseUint32(b []byte) (uint32, error) { return number("number", b, (*scanner).dec32) }

// ParseHex32 parses a file with one hexadecimal number of 32 bits.
func ParseHex32(b []byte) (uint32, error) { return number("number", b, (*scanner).hex32) }

// Autogroup is /proc/PID/autogroup (sched(7)).
type Autogroup struct {
	Present bool // false when the process is in no autogroup (a real task group)
	ID      int64
	Nice    int // of the group
}

// ReadAutogroup reads the autogroup of a process. Without
// CONFIG_SCHED_AUTOGROUP it is fs.ErrNotExist and not ErrGone.
func ReadAutogroup(pid int) (Autogroup, error) {
	return parseFile(pid, 0, "autogroup", whole, ParseAutogroup)
}

// ParseAutogroup parses "/autogroup-242 nice 0", or nothing.
func ParseAutogroup(b []byte) (Autogroup, error) {
	if len(b) == 0 {
		return Autogroup{}, nil
	}
	s := scanner{b: b}
	a := Autogroup{Present: s.prefix("/autogroup-")}
	a.ID = s.sdec()
	if !a.Present || !s.prefix(" nice ") {
		s.bad = true
	}
	a.Nice = s.int()
	if s.bad || !s.done() {
		return Autogroup{}, badLine("autogroup", b)
	}
	return a, nil
}

// TimensOffsets are the offsets of a time namespace (time_namespaces(7)).
type TimensOffsets struct {
	Monotonic, Boottime Timespec // Sec may be negative, Nsec is 0 to 999999999
}

// ReadTimensOffsets gives the offsets of the time namespace that the children
// of a process will be in: once one exists that is the process's own too,
// unless it has unshared a new one. All zero where the kernel has no time
// namespaces.
func ReadTimensOffsets(pid int) (TimensOffsets, error) {
	t, err := parseFile(pid, 0, "timens_offsets", whole, ParseTimensOffsets)
	if isAbsent(err) {
		return TimensOffsets{}, nil
	}
	return t, err
}

// ParseTimensOffsets parses lines of "clock seconds nanoseconds", the clock by
// its name or its number.
func ParseTimensOffsets(b []byte) (TimensOffsets, error) {
	var t TimensOffsets
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		s := scanner{b: line}
		s.blanks()
		clock := s.word()
		var v Timespec
		s.blanks()
		v.Sec = s.sdec()
		s.blanks()
		v.Nsec = s.sdec()
		switch string(clock) {
		case "monotonic", "1":
			t.Monotonic = v
		case "boottime", "7":
			t.Boottime = v
		default:
			s.bad = true // a clock that would have to be restored too
		}
		if s.bad || !s.done() {
			return TimensOffsets{}, badLine("timens_offsets", line)
		}
	}
	return t, nil
}

// IsGone says that err means that the task does not exist any more.
func IsGone(err error) bool { return errors.Is(err, ErrGone) }
