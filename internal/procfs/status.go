package procfs

import "bytes"

// Status is /proc/PID/status or /proc/PID/task/TID/status (proc_pid_status(5)).
// Sizes are bytes. A line that the kernel does not print leaves the zero value
// and, where zero would mean something else, a Has field false.
type Status struct {
	Name      string
	Umask     uint32
	HasUmask  bool // false for a zombie: it has no fs_struct any more
	State     byte // R S D T t Z X I P
	Tgid      int
	Ngid      int
	Pid       int
	PPid      int // in the reader's pid namespace; 0 for a parent outside it
	TracerPid int
	Uid       [4]uint32 // real, effective, saved, file system
	Gid       [4]uint32
	FDSize    uint64 // slots of the descriptor table; 0 for a zombie
	Groups    []uint32

	// The ids in each nested pid namespace, the reader's first.
	NStgid, NSpid, NSpgid, NSsid []int

	Kthread    bool // a kernel thread
	HasKthread bool // kernels up to 6.6 lack the line: see PFKthread in Stat

	HasMM       bool // the lines of an address space are there
	VmLck       uint64
	VmPin       uint64
	VmRSS       uint64
	VmSwap      uint64
	CoreDumping bool
	THPEnabled  bool // prctl PR_SET_THP_DISABLE is not in force

	// UntagMask is the mask of address bits that count (x86 LAM); since 6.4.
	UntagMask    uint64
	HasUntagMask bool

	Threads                                 int
	SigPnd, ShdPnd, SigBlk, SigIgn, SigCgt  uint64 // signal n is bit n-1
	CapInh, CapPrm, CapEff, CapBnd, CapAmb  uint64 // capability n is bit n
	NoNewPrivs                              bool
	Seccomp                                 int // SECCOMP_MODE_*
	SeccompFilters                          int
	SpeculationStoreBypass                  string // "thread vulnerable", "vulnerable", …
	SpeculationIndirectBranch               string
	X86ThreadFeatures, X86ThreadFeatsLocked string // shadow stack: "shstk wrss"; since 6.6
	CpusAllowed                             string // hexadecimal words of 32 bits, commas between
	CpusAllowedList                         string // "0-3,5"
	MemsAllowed                             string
}

// ReadStatus reads the status file of a thread, or of a process when tid is 0.
func ReadStatus(pid, tid int) (Status, error) {
	return parseFile(pid, tid, "status", whole, ParseStatus)
}

// ParseStatus parses a status file.
func ParseStatus(b []byte) (Status, error) {
	var st Status
	var seenPid bool
	for len(b) > 0 {
		var line []byte
		line, b = cutLine(b)
		if st.Name == "" && bytes.HasPrefix(line, []byte("Name:\t")) {
			// The name may begin or end with blanks: only the one tab goes.
			st.Name = unescapeName(line[len("Name:\t"):])
			continue
		}
		key, v, ok := cutKey(line)
		if !ok {
			continue
		}
		if string(key) == "Pid" {
			seenPid = true
		}
		if !st.line(key, v) {
			return Status{}, badLine("status", line)
		}
	}
	if !seenPid {
		return Status{}, badLine("status: no Pid line", b)
	}
	return st, nil
}

// line takes one line; false when it knows the key but not the value.
func (st *Status) line(key, v []byte) bool {
	s := scanner{b: v}
	switch string(key) { // the compiler does not allocate here
	case "Umask":
		st.Umask, st.HasUmask = s.narrow(s.oct()), true
	case "State":
		if len(v) == 0 {
			return false
		}
		st.State = v[0]
		return true
	case "Tgid":
		st.Tgid = s.int()
	case "Ngid":
		st.Ngid = s.int()
	case "Pid":
		st.Pid = s.int()
	case "PPid":
		st.PPid = s.int()
	case "TracerPid":
		st.TracerPid = s.int()
	case "Uid":
		st.Uid = s.four()
	case "Gid":
		st.Gid = s.four()
	case "FDSize":
		st.FDSize = s.dec()
	case "Groups":
		if n := bytes.Count(v, []byte(" ")); len(v) > 0 {
			st.Groups = make([]uint32, 0, n+1)
		}
		for !s.done() && !s.bad {
			st.Groups = append(st.Groups, s.dec32())
			s.blanks()
		}
	case "NStgid":
		st.NStgid = s.ints()
	case "NSpid":
		st.NSpid = s.ints()
	case "NSpgid":
		st.NSpgid = s.ints()
	case "NSsid":
		st.NSsid = s.ints()
	case "Kthread":
		st.Kthread, st.HasKthread = s.bool(), true
	case "VmLck":
		st.VmLck = s.kB()
	case "VmPin":
		st.VmPin = s.kB()
	case "VmRSS":
		st.VmRSS, st.HasMM = s.kB(), true
	case "VmSwap":
		st.VmSwap = s.kB()
	case "CoreDumping":
		st.CoreDumping = s.bool()
	case "THP_enabled":
		st.THPEnabled = s.bool()
	case "untag_mask":
		st.UntagMask, st.HasUntagMask = s.hex0x(), true
	case "Threads":
		st.Threads = s.int()
	case "SigPnd":
		st.SigPnd = s.hex()
	case "ShdPnd":
		st.ShdPnd = s.hex()
	case "SigBlk":
		st.SigBlk = s.hex()
	case "SigIgn":
		st.SigIgn = s.hex()
	case "SigCgt":
		st.SigCgt = s.hex()
	case "CapInh":
		st.CapInh = s.hex()
	case "CapPrm":
		st.CapPrm = s.hex()
	case "CapEff":
		st.CapEff = s.hex()
	case "CapBnd":
		st.CapBnd = s.hex()
	case "CapAmb":
		st.CapAmb = s.hex()
	case "NoNewPrivs":
		st.NoNewPrivs = s.bool()
	case "Seccomp":
		st.Seccomp = s.int()
	case "Seccomp_filters":
		st.SeccompFilters = s.int()
	case "Speculation_Store_Bypass":
		st.SpeculationStoreBypass = common(v)
		return true
	case "SpeculationIndirectBranch":
		st.SpeculationIndirectBranch = common(v)
		return true
	case "x86_Thread_features":
		st.X86ThreadFeatures = string(v)
		return true
	case "x86_Thread_features_locked":
		st.X86ThreadFeatsLocked = string(v)
		return true
	case "Cpus_allowed":
		st.CpusAllowed = string(v)
		return true
	case "Cpus_allowed_list":
		st.CpusAllowedList = string(v)
		return true
	case "Mems_allowed":
		st.MemsAllowed = string(v)
		return true
	default:
		return true
	}
	return !s.bad && s.done()
}

// four takes the four ids of Uid and Gid.
func (s *scanner) four() (v [4]uint32) {
	for i := range v {
		s.blanks()
		v[i] = s.dec32()
	}
	return v
}

// ints takes numbers up to the end.
func (s *scanner) ints() []int {
	var v []int
	for !s.done() && !s.bad {
		if v == nil {
			v = make([]int, 0, 2) // most tasks are in one or two pid namespaces
		}
		v = append(v, s.int())
		s.blanks()
	}
	return v
}

// bool takes 0 or 1.
func (s *scanner) bool() bool {
	v := s.dec()
	if v > 1 {
		s.bad = true
	}
	return v == 1
}

// kB takes "123 kB" and gives bytes.
func (s *scanner) kB() uint64 {
	v := s.dec()
	s.blanks()
	if !s.prefix("kB") || v>>54 != 0 {
		s.bad = true
	}
	return v << 10
}

// common makes a string of v without allocating for the texts met on almost
// every line.
func common(v []byte) string {
	switch string(v) {
	case "vulnerable":
		return "vulnerable"
	case "thread vulnerable":
		return "thread vulnerable"
	case "not vulnerable":
		return "not vulnerable"
	case "always enabled":
		return "always enabled"
	case "conditional enabled":
		return "conditional enabled"
	}
	return string(v)
}

// unescapeName undoes the escapes of the Name line: the kernel writes a newline
// as \n and a backslash as \\, and leaves all other bytes (proc_task_name).
func unescapeName(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) {
			switch b[i+1] {
			case 'n':
				out = append(out, '\n')
				i++
				continue
			case '\\':
				out = append(out, '\\')
				i++
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}
