package collect

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
	"github.com/fermata-cr/fermata/internal/waits"
)

// A timed system call that is interrupted goes on through the task's restart
// block, which holds when it ends and which nothing shows. So the thread is
// looked at before it is interrupted: the scheduler's exec_start says when it
// last ran, that is, since when it has slept, and the call's own arguments say
// for how long it wanted to.

// sleeping is a thread's timed system call as seen before the freeze.
type sleeping struct {
	nr     uint64
	args   [6]uint64
	wanted time.Duration
	until  time.Time // by this process's monotonic clock
	noted  bool      // by an earlier checkpoint, which interrupted it
}

// schedClock relates one processor's scheduler clock to time.Now. Each has its
// own: the time stolen by a hypervisor and that of interrupts is left out of it
// (rq_clock_task, kernel/sched/core.c).
type schedClock struct {
	at   time.Time
	sclk int64
}

// schedClocks are the clocks of the processors that were asked for.
type schedClocks map[int]*schedClock

// of gives a processor's clock, nil when it cannot be had. The calling thread
// goes there for a moment: the caller's must be locked to it.
func (c schedClocks) of(cpu int) *schedClock {
	if k, ok := c[cpu]; ok {
		return k
	}
	c[cpu] = nil
	own, err := sys.SchedAffinity(0)
	if err != nil {
		return nil
	}
	only := make([]byte, max(len(own), (cpu/64+1)*8))
	only[cpu/8] = 1 << (cpu % 8)
	if sys.SetSchedAffinity(0, only) != nil {
		return nil
	}
	defer sys.SetSchedAffinity(0, own)
	// After a sleep exec_start is the moment we got the processor back. On a
	// busy machine we may lose it again between the two looks at the clocks:
	// the closest pair of some tries is taken.
	least := time.Hour
	for range 20 {
		ts := unix.Timespec{Nsec: 1}
		_ = unix.Nanosleep(&ts, nil)
		now := time.Now()
		v, err := procfs.ReadSchedExecStart(os.Getpid(), unix.Gettid())
		if err != nil {
			return nil
		}
		if d := time.Since(now); d < least {
			c[cpu], least = &schedClock{now, v}, d
		}
		if least < 100*time.Microsecond {
			break
		}
	}
	return c[cpu]
}

// lastRan gives when a sleeping thread last ran; false when it is awake by now.
func (c schedClocks) lastRan(pid, tid int) (time.Time, bool) {
	st, err := procfs.ReadStat(pid, tid)
	if err != nil {
		return time.Time{}, false
	}
	k := c.of(st.Processor)
	if k == nil {
		return time.Time{}, false
	}
	exec, err := procfs.ReadSchedExecStart(pid, tid)
	if err != nil || exec == 0 {
		// It was woken for another processor, and has not run there yet
		// (migrate_task_rq_fair, kernel/sched/fair.c).
		return time.Time{}, false
	}
	// What it has done meanwhile is told by another processor's clock.
	if now, err := procfs.ReadStat(pid, tid); err != nil || now.Processor != st.Processor {
		return time.Time{}, false
	}
	return k.at.Add(time.Duration(exec - k.sclk)), true
}

// asleep examines one running thread; ok when it sits in a timed call whose end
// can be told.
func asleep(pid, tid int, c schedClocks, notes func() []waits.Wait) (sleeping, bool) {
	sc, err := procfs.ReadSyscall(pid, tid)
	if err != nil || sc.Running || sc.Nr < 0 {
		return sleeping{}, false
	}
	s := sleeping{nr: uint64(sc.Nr), args: sc.Args}
	if s.nr == unix.SYS_RESTART_SYSCALL {
		last, ok := c.lastRan(pid, tid)
		if !ok {
			return sleeping{}, false
		}
		now := time.Now()
		ran := waits.Now() - int64(now.Sub(last))
		for _, w := range notes() {
			if w.TID == tid && w.Holds(s.args, ran) {
				s.nr = w.Nr
				s.until = now.Add(time.Duration(w.Until - waits.Now()))
				s.wanted, s.noted = max(time.Until(s.until), 0), true
				return s, true
			}
		}
		s.nr = restartedCall(pid, tid, s.args)
	}
	d, ok := timeoutOf(pid, s.nr, s.args)
	if !ok {
		return sleeping{}, false
	}
	last, ok := c.lastRan(pid, tid)
	if !ok {
		return sleeping{}, false
	}
	s.wanted, s.until = d, last.Add(d)
	return s, true
}

// restartedCall tells which call a thread inside restart_syscall is in, from
// the function its restart block runs.
func restartedCall(pid, tid int, a [6]uint64) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stack", pid, tid)) // root only
	if err != nil {
		return 0
	}
	switch st := string(b); {
	case strings.Contains(st, "futex_wait"):
		return unix.SYS_FUTEX
	case strings.Contains(st, "do_restart_poll"):
		return sys.NrPoll
	case strings.Contains(st, "nanosleep"), strings.Contains(st, "nsleep"):
		// nanosleep's first argument is a pointer, clock_nanosleep's a clock.
		if int64(int32(a[0])) == int64(a[0]) && int32(a[0]) < 16 {
			return unix.SYS_CLOCK_NANOSLEEP
		}
		return unix.SYS_NANOSLEEP
	}
	return 0
}

// timeoutOf gives the relative timeout of a call that has a restart block.
func timeoutOf(pid int, nr uint64, a [6]uint64) (time.Duration, bool) {
	ts := func(addr uint64) (time.Duration, bool) {
		var b [16]byte
		if addr == 0 || sys.ReadMem(pid, addr, b[:]) != nil {
			return 0, false
		}
		sec, nsec := int64(binary.LittleEndian.Uint64(b[:])), int64(binary.LittleEndian.Uint64(b[8:]))
		if sec < 0 || nsec < 0 || nsec >= 1e9 || sec > 1<<32 {
			return 0, false
		}
		return time.Duration(sec)*time.Second + time.Duration(nsec), true
	}
	const (
		timerAbstime  = 1
		futexCmdMask  = 127
		futexWait     = 0
		futexWaitBits = 9
	)
	switch nr {
	case unix.SYS_NANOSLEEP:
		return ts(a[0])
	case unix.SYS_CLOCK_NANOSLEEP:
		if a[1]&timerAbstime != 0 {
			return 0, false // restarts by itself, with the same end
		}
		return ts(a[2])
	case sys.NrPoll:
		if int32(a[2]) <= 0 {
			return 0, false
		}
		return time.Duration(int32(a[2])) * time.Millisecond, true
	case sys.NrEpollWait, unix.SYS_EPOLL_PWAIT:
		if int32(a[3]) <= 0 {
			return 0, false
		}
		return time.Duration(int32(a[3])) * time.Millisecond, true
	case unix.SYS_FUTEX:
		if a[1]&futexCmdMask == futexWait {
			return ts(a[3])
		}
	}
	return 0, false
}

// restartBlock says how a thread's interrupted call goes on after a restore,
// nil when it is simply issued again.
func (c *Collector) restartBlock(t *Task, th *tracee.Thread) *fm.RestartBlock {
	if !tracee.RestartBlock(&th.Regs) {
		return nil
	}
	nr, args := callOf(&th.Regs)
	s, ok := c.asleep[th.TID]
	if c.doubtful(t, nr, args, s, ok) {
		left, call, known, err := c.Files.RestartLeft(th.TID, nr, args, hostClock)
		if err == nil && known {
			t.waits = append(t.waits, waits.Wait{TID: th.TID, Nr: call, Args: args, Until: waits.Now() + left})
			return &fm.RestartBlock{Nr: proto.Uint32(uint32(call)), RemainingNs: proto.Int64(max(left+int64(c.Elapsed()), 0))}
		}
	}
	if ok && (nr == s.nr || nr == unix.SYS_RESTART_SYSCALL) && args == s.args {
		left := max(min(time.Until(s.until)+c.Elapsed(), s.wanted), 0)
		t.waits = append(t.waits, waits.Wait{TID: th.TID, Nr: s.nr, Args: args, Until: waits.Now() + int64(time.Until(s.until))})
		return &fm.RestartBlock{Nr: proto.Uint32(uint32(s.nr)), RemainingNs: proto.Int64(int64(left))}
	}
	if nr == unix.SYS_RESTART_SYSCALL {
		if nr = issuedCall(t.At(), &th.Regs); nr == 0 {
			nr = guessRestarted(args)
		}
	}
	if d, ok := timeoutOf(t.At(), nr, args); ok {
		return &fm.RestartBlock{Nr: proto.Uint32(uint32(nr)), RemainingNs: proto.Int64(int64(d))}
	}
	return &fm.RestartBlock{Nr: proto.Uint32(uint32(nr)), RemainingNs: proto.Int64(-1)}
}

// doubtful tells whether what was seen of a thread's sleep may not be true: nothing
// was seen, or its limit lies in memory that others may have written to since.
func (c *Collector) doubtful(t *Task, nr uint64, args [6]uint64, s sleeping, seen bool) bool {
	if !seen || nr != s.nr && nr != unix.SYS_RESTART_SYSCALL || args != s.args {
		return timed(nr, args)
	}
	return s.inMemory() && (len(t.Threads) > 1 || c.threadsIn(t.VM) > 1 || t.sharedAt(s.limitAt()))
}

// timed tells whether a call that has a restart block may have a limit that is
// kept there, and not in its arguments: a moment is a moment.
func timed(nr uint64, a [6]uint64) bool {
	const (
		timerAbstime  = 1
		futexCmdMask  = 127
		futexWait     = 0
		futexWaitBits = 9
	)
	switch nr {
	case sys.NrPoll:
		return int32(a[2]) > 0
	case unix.SYS_NANOSLEEP:
		return true
	case unix.SYS_CLOCK_NANOSLEEP:
		return a[1]&timerAbstime == 0
	case unix.SYS_FUTEX:
		return a[1]&futexCmdMask == futexWait && a[3] != 0
	case unix.SYS_RESTART_SYSCALL:
		return a[0] < 4096 || a[1]&futexCmdMask != futexWaitBits || a[1] >= 4096
	}
	return false
}

// limitAt gives where the limit of a call is, 0 when it is none of memory.
func (s *sleeping) limitAt() uint64 {
	switch s.nr {
	case unix.SYS_NANOSLEEP:
		return s.args[0]
	case unix.SYS_CLOCK_NANOSLEEP:
		return s.args[2]
	case unix.SYS_FUTEX:
		return s.args[3]
	}
	return 0
}

// inMemory tells whether the limit was read from the program's memory: not where
// a note has it.
func (s *sleeping) inMemory() bool { return !s.noted && s.limitAt() != 0 }

// sharedAt tells whether an address is one of memory that others may have mapped.
func (t *Task) sharedAt(addr uint64) bool {
	for i := range t.Areas {
		if a := &t.Areas[i]; a.Start <= addr && addr < a.End {
			return a.Shared
		}
	}
	return false
}

// hostClock gives a clock's time as the kernel keeps it, which no time namespace
// shifts.
func hostClock(id int) int64 {
	var t unix.Timespec
	if unix.ClockGettime(int32(id), &t) != nil {
		return 0
	}
	o, err := procfs.ReadTimensOffsets(os.Getpid())
	if err != nil {
		return t.Nano()
	}
	switch id {
	case unix.CLOCK_MONOTONIC:
		return t.Nano() - nanos(o.Monotonic)
	case unix.CLOCK_BOOTTIME:
		return t.Nano() - nanos(o.Boottime)
	}
	return t.Nano()
}

// shorten makes an epoll_wait that the freeze broke off, and that is issued
// again because it has no restart block, wait for what remained only. The
// timeout is in a register that a system call leaves alone and no ABI keeps.
func (c *Collector) shorten(th *tracee.Thread) error {
	s, ok := c.asleep[th.TID]
	if !ok || (s.nr != sys.NrEpollWait && s.nr != unix.SYS_EPOLL_PWAIT) {
		return nil
	}
	left := max(min(time.Until(s.until)+c.Elapsed(), s.wanted), 0)
	if !setTimeout(&th.Regs, s.nr, s.args, uint64((left+time.Millisecond-1)/time.Millisecond)) {
		return nil
	}
	return sys.SetRegs(th.TID, &th.Regs)
}

// guessRestarted decides by the shape of the arguments, when nothing else is
// left: a clock number first means clock_nanosleep.
func guessRestarted(a [6]uint64) uint64 {
	if a[0] < 16 {
		return unix.SYS_CLOCK_NANOSLEEP
	}
	if a[1] < 128 || a[1]&^(128|256) < 16 {
		return unix.SYS_FUTEX
	}
	return unix.SYS_NANOSLEEP
}
