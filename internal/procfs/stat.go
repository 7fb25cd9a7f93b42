package procfs

import "bytes"

// Stat is /proc/PID/stat or /proc/PID/task/TID/stat (proc_pid_stat(5); the
// kernel's do_task_stat in fs/proc/array.c). Counters that say how the machine
// was used (faults, times, memory) are left out.
//
// StartCode, EndCode, StartStack, KstkEsp, KstkEip and the eight addresses
// after ExitSignal are 0 (the first two 1) unless the reader may trace the
// task, and 0 for a task without an address space. ExitCode too is 0 for a
// reader who may not trace.
type Stat struct {
	Pid        int    // the thread's id (of the process when tid was 0)
	Comm       string // may hold any byte but NUL, " ) " and newlines too
	State      byte   // R S D T t Z X I P
	PPid       int
	Pgrp       int // -1 when the task is about to vanish
	Session    int // the same
	TtyNr      int // device number of the controlling terminal, 0 for none
	TtyPgrp    int // foreground group of that terminal, -1 for none
	Flags      uint32
	Priority   int // as the scheduler prints it: 20+nice, or -1-rt_priority
	Nice       int
	NumThreads int
	StartTime  uint64 // clock ticks (1/100 s) since boot, of the thread itself
	StartCode  uint64
	EndCode    uint64
	StartStack uint64
	KstkEsp    uint64 // 0 except for a task that exits or dumps core
	KstkEip    uint64 // the same
	ExitSignal int    // -1 for a thread that is not the leader
	Processor  int
	RtPriority uint32
	Policy     uint32 // SCHED_*, without the SCHED_RESET_ON_FORK bit
	StartData  uint64
	EndData    uint64
	StartBrk   uint64
	ArgStart   uint64
	ArgEnd     uint64
	EnvStart   uint64
	EnvEnd     uint64
	ExitCode   int // as wait(2) gives it
}

// Bits of Stat.Flags (include/linux/sched.h; not uapi, but unchanged since 5.15).
const (
	PFExiting       = 0x00000004 // the task is in do_exit
	PFIOWorker      = 0x00000010 // a thread of io_uring's, which never leaves the kernel
	PFForkNoExec    = 0x00000040 // forked and has not called execve since
	PFDumpCore      = 0x00000200
	PFSignaled      = 0x00000400 // killed by a signal
	PFKthread       = 0x00200000 // a kernel thread
	PFNoSetAffinity = 0x04000000 // its CPU affinity may not be changed
)

// ReadStat reads the stat file of a thread, or of a process when tid is 0.
func ReadStat(pid, tid int) (Stat, error) {
	return parseFile(pid, tid, "stat", whole, ParseStat)
}

// ParseStat parses a stat file. The name stands between the first "(" and the
// last ")": what follows the name has no parenthesis.
func ParseStat(b []byte) (Stat, error) {
	var st Stat
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return st, badLine("stat", b)
	}
	head := scanner{b: b[:open]}
	st.Pid = head.int()
	head.lit(' ')
	st.Comm = string(b[open+1 : end])

	s := scanner{b: b[end+1:]}
	s.blanks()
	if w := s.word(); len(w) == 1 {
		st.State = w[0]
	} else {
		s.bad = true
	}
	next := func() *scanner { s.blanks(); return &s }
	st.PPid = next().int()
	st.Pgrp = next().int()
	st.Session = next().int()
	st.TtyNr = next().int()
	st.TtyPgrp = next().int()
	st.Flags = next().dec32()
	for range 8 { // minflt cminflt majflt cmajflt utime stime cutime cstime
		next().word()
	}
	st.Priority = next().int()
	st.Nice = next().int()
	st.NumThreads = next().int()
	next().word() // itrealvalue
	st.StartTime = next().dec()
	for range 3 { // vsize rss rsslim
		next().word()
	}
	st.StartCode = next().dec()
	st.EndCode = next().dec()
	st.StartStack = next().dec()
	st.KstkEsp = next().dec()
	st.KstkEip = next().dec()
	for range 7 { // signal blocked sigignore sigcatch wchan nswap cnswap
		next().word()
	}
	st.ExitSignal = next().int()
	st.Processor = next().int()
	st.RtPriority = next().dec32()
	st.Policy = next().dec32()
	for range 3 { // delayacct_blkio_ticks guest_time cguest_time
		next().word()
	}
	st.StartData = next().dec()
	st.EndData = next().dec()
	st.StartBrk = next().dec()
	st.ArgStart = next().dec()
	st.ArgEnd = next().dec()
	st.EnvStart = next().dec()
	st.EnvEnd = next().dec()
	st.ExitCode = next().int()
	if head.bad || head.i != open || s.bad {
		return Stat{}, badLine("stat", b)
	}
	return st, nil
}
