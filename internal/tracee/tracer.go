package tracee

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// A task has one tracer. What a debugger in the tree traces can neither be seized
// nor run an executor. It need not: as long as its tracer stands still, a task in
// a ptrace-stop does too, and nobody but that tracer can make it go on. It is
// looked at through the tracer, whose executor makes ptrace calls that change
// nothing (Traced), and in the kernel's memory; so there is nothing to be undone.

// restTime is how long a traced task may take to come into a ptrace-stop or to
// fall asleep: its tracer may have let it go on a moment ago, and it gets no
// further than to its next stop. One that computes meanwhile may do so for long.
const (
	restTime    = 200 * time.Millisecond
	computeTime = 5 * time.Millisecond
)

// untold refuses a task that has ended and whose tracer, who hears of it before
// its parent, has not waited for it.
func untold(pid, tid int, st *procfs.Status) error {
	return &fault.RefusedError{Reasons: []fault.Reason{{
		PID: pid, Comm: st.Name, Object: fmt.Sprintf("thread %d", tid),
		Why:    fmt.Sprintf("it has ended, and its tracer, pid %d, has not waited for it", st.TracerPid),
		Remedy: "try again", Passing: true,
	}}}
}

// Traced tells whether a thread of the process has a tracer in the tree.
func (p *Process) Traced() bool {
	return slices.ContainsFunc(p.Threads, func(th *Thread) bool { return th.Tracer != 0 })
}

// tracedFirst gives the processes in the order in which they can be killed: a
// tracer's end would let its tracees run.
func (t *Tree) tracedFirst() (all []*Process) {
	for _, traced := range []bool{true, false} {
		for _, p := range t.Processes {
			if p.Traced() == traced {
				all = append(all, p)
			}
		}
	}
	return all
}

// checkTracers refuses tasks whose tracer is not in the tree, or is itself traced
// by somebody of it.
func (t *Tree) checkTracers() error {
	var refuse fault.Refusals
	for _, th := range t.foreign {
		by := t.seen[th.Tracer]
		why := fmt.Sprintf("already traced by pid %d", th.Tracer)
		if by != nil {
			why += ", which is itself traced"
		}
		if by == nil || by.Tracer != 0 {
			comm, _ := procfs.ReadComm(th.process.PID, th.TID)
			refuse.Add(fault.Reason{
				PID: th.process.PID, Comm: comm, Object: fmt.Sprintf("thread %d", th.TID), Why: why,
				Remedy: "end the debugger or tracer first, or save it with its tracees",
			})
		}
	}
	return refuse.Err()
}

// awaitForeign waits until everything that others trace is in a ptrace-stop,
// asleep, or busy for long. again says that it may have changed the tree since
// that was looked through.
func (t *Tree) awaitForeign() (again bool, err error) {
	began := time.Now()
	for _, th := range slices.Clone(t.foreign) {
		for looks := 0; ; looks++ {
			st, err := procfs.ReadStat(th.process.PID, th.TID)
			if err != nil {
				t.foreign = slices.DeleteFunc(t.foreign, func(x *Thread) bool { return x == th })
				t.drop(th)
				again = true
				break
			}
			if st.State == 't' || st.State == 'S' {
				again = again || looks > 0
				break
			}
			if st.State == 'R' && time.Since(began) > computeTime {
				break // what it brings forth will be looked for when it is interrupted
			}
			if st.State == 'Z' || st.State == 'X' {
				status, err := procfs.ReadStatus(th.process.PID, th.TID)
				if err == nil {
					err = untold(th.process.PID, th.TID, &status)
				}
				return again, err
			}
			if time.Since(began) > restTime {
				return again, &fault.RefusedError{Reasons: []fault.Reason{{
					PID: th.process.PID, Comm: st.Comm, Object: fmt.Sprintf("thread %d", th.TID),
					Why:    fmt.Sprintf("it cannot be stopped now by its tracer, thread %d of the tree", th.Tracer),
					Remedy: "try again", Passing: true,
				}}}
			}
			sys.Nap(100 * time.Microsecond)
		}
	}
	if len(t.foreign) > 0 && !t.rested {
		t.rested, again = true, true
	}
	return again, nil
}

// Traced is a task that is looked at, and after a restore driven, through the
// executor of its tracer's thread.
type Traced struct {
	E   *Executor
	TID int // as the tracer knows it
}

// Requests that only a traced task's tracer in the tree makes.
const (
	ptraceAttach     = 16
	ptraceSetSiginfo = 0x4203
)

func (x Traced) call(req, addr, data uint64) (int64, error) {
	r, err := x.E.Call(unix.SYS_PTRACE, req, uint64(x.TID), addr, data)
	if err != nil {
		return 0, fmt.Errorf("ptrace request %#x on %d: %w", req, x.TID, err)
	}
	return r, nil
}

// read makes a request that stores n bytes.
func (x Traced) read(req, addr uint64, n int) ([]byte, error) {
	x.E.Reset()
	at, b := x.E.Data(n)
	_, err := x.call(req, addr, at)
	return b, err
}

// write makes a request that takes some bytes.
func (x Traced) write(req, addr uint64, b []byte) error {
	x.E.Reset()
	_, err := x.call(req, addr, x.E.Put(b))
	return err
}

// do makes a request with a number.
func (x Traced) do(req, addr, data uint64) error {
	x.E.Reset()
	_, err := x.call(req, addr, data)
	return err
}

// Regs reads its general registers.
func (x Traced) Regs() (r sys.Regs, err error) {
	b, err := x.read(sys.PtraceGetRegs, 0, sys.RegsSize)
	if err == nil {
		r = sys.DecodeRegs(b)
	}
	return r, err
}

// SetRegs writes its general registers.
func (x Traced) SetRegs(r *sys.Regs) error { return x.write(sys.PtraceSetRegs, 0, sys.EncodeRegs(r)) }

// Mask reads its signal mask.
func (x Traced) Mask() (uint64, error) {
	b, err := x.read(sys.PtraceGetSigmask, 8, 8)
	return le.Uint64(b), err
}

// SetMask writes its signal mask.
func (x Traced) SetMask(m uint64) error {
	return x.write(sys.PtraceSetSigmask, 8, le.AppendUint64(nil, m))
}

// Xstate reads its extended state, as the kernel lays it out for ptrace.
func (x Traced) Xstate() ([]byte, error) {
	x.E.Reset()
	const room = DataSize - 64
	at, b := x.E.Data(room)
	iov, v := x.E.Data(16)
	le.PutUint64(v, at)
	le.PutUint64(v[8:], room)
	if _, err := x.call(sys.PtraceGetRegset, sys.NoteXstate, iov); err != nil {
		return nil, err
	}
	return slices.Clone(b[:le.Uint64(v[8:])]), nil
}

// Siginfo reads what it has stopped for; EINVAL in a group-stop.
func (x Traced) Siginfo() (si sys.Siginfo, err error) {
	b, err := x.read(sys.PtraceGetSiginfo, 0, len(si))
	copy(si[:], b)
	return si, err
}

// SetSiginfo changes the signal that it is about to get.
func (x Traced) SetSiginfo(si []byte) error { return x.write(ptraceSetSiginfo, 0, si) }

// Message reads what belongs to its stop (PTRACE_GETEVENTMSG).
func (x Traced) Message() (uint64, error) {
	b, err := x.read(sys.PtraceGetEvent, 0, 8)
	return le.Uint64(b), err
}

// Pending reads the queue of its own signals or, when shared, of its process's.
func (x Traced) Pending(shared bool) (all []sys.Siginfo, err error) {
	const batch = 32
	for {
		x.E.Reset()
		args, a := x.E.Data(16)
		le.PutUint64(a, uint64(len(all)))
		if shared {
			le.PutUint32(a[8:], 1) // PTRACE_PEEKSIGINFO_SHARED
		}
		le.PutUint32(a[12:], batch)
		at, b := x.E.Data(batch * len(sys.Siginfo{}))
		n, err := x.call(sys.PtracePeekSig, args, at)
		if err != nil {
			return nil, err
		}
		for i := range int(n) {
			var si sys.Siginfo
			copy(si[:], b[i*len(si):])
			all = append(all, si)
		}
		if n == 0 { // fewer are no sign of the end: see sys.PeekSignals
			return all, nil
		}
	}
}

// Rseq reads its registration; none on a kernel before 5.13.
func (x Traced) Rseq() (c sys.RseqConfiguration) {
	b, err := x.read(sys.PtraceGetRseq, sys.RseqSize, sys.RseqSize)
	if err != nil {
		return c
	}
	c.Pointer, c.Size, c.Signature, c.Flags = le.Uint64(b), le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:])
	return c
}

// Dispatch tells whether its system calls go to a handler of its own.
func (x Traced) Dispatch() bool {
	b, err := x.read(sys.PtraceGetSud, 32, 32) // struct ptrace_sud_config
	return err == nil && le.Uint64(b) != 0
}

// User reads a word of its user area.
func (x Traced) User(off uint64) (uint64, error) {
	b, err := x.read(sys.PtracePeekUser, off, 8)
	return le.Uint64(b), err
}

// SetUser writes one.
func (x Traced) SetUser(off, v uint64) error { return x.do(sys.PtracePokeUser, off, v) }

// Seize makes the executor's thread its tracer.
func (x Traced) Seize(opts uint32) error { return x.do(sys.PtraceSeize, 0, uint64(opts)) }

// Attach does so, too, in the older way, with a SIGSTOP.
func (x Traced) Attach() error { return x.do(ptraceAttach, 0, 0) }

// Interrupt asks it to stop.
func (x Traced) Interrupt() error { return x.do(sys.PtraceInterrupt, 0, 0) }

// SetOptions replaces its PTRACE_O_… bits.
func (x Traced) SetOptions(opts uint32) error { return x.do(sys.PtraceSetOptions, 0, uint64(opts)) }

// Cont lets it run on.
func (x Traced) Cont() error { return x.do(sys.PtraceCont, 0, 0) }

// ContToCall lets it run up to the next entry to or exit from a system call.
func (x Traced) ContToCall() error { return x.do(sys.PtraceSyscall, 0, 0) }

// Kill sends it a signal from its tracer.
func (x Traced) Kill(pid, sig int) error {
	x.E.Reset()
	_, err := x.E.Call(unix.SYS_TGKILL, uint64(pid), uint64(x.TID), uint64(sig))
	return err
}

// Reports of a stop (include/uapi/asm-generic/siginfo.h, CLD_…).
const cldTrapped = 4

// Stopped looks for a report of a stop that nobody has taken yet, and leaves it;
// with wait it waits for one. The status is that of si_status.
func (x Traced) Stopped(wait bool) (status int, ok bool, err error) {
	flags := uint64(unix.WEXITED | unix.WSTOPPED | unix.WNOWAIT | unix.WALL)
	if !wait {
		flags |= unix.WNOHANG
	}
	x.E.Reset()
	at, b := x.E.Data(128)
	if _, err := x.E.Call(unix.SYS_WAITID, unix.P_PID, uint64(x.TID), at, flags, 0); err != nil {
		return 0, false, fmt.Errorf("waitid of %d: %w", x.TID, err)
	}
	if le.Uint32(b[16:]) == 0 { // si_pid
		return 0, false, nil
	}
	if code := int32(le.Uint32(b[8:])); code != cldTrapped {
		return 0, false, fmt.Errorf("%d: a report of another kind (%d) than of a stop", x.TID, code)
	}
	return int(le.Uint32(b[24:])), true, nil
}

// Take takes the report of a stop; that of its end is left.
func (x Traced) Take() error {
	x.E.Reset()
	_, err := x.E.Call(unix.SYS_WAITID, unix.P_PID, uint64(x.TID), 0, unix.WSTOPPED|unix.WALL|unix.WNOHANG, 0)
	return err
}

// Quiet takes away the SIGCHLD that a stop has sent to its tracer.
func (x Traced) Quiet() error {
	x.E.Reset()
	set := x.E.Put(le.AppendUint64(nil, sigchld))
	zero, _ := x.E.Data(16)
	if _, err := x.E.Call(unix.SYS_RT_SIGTIMEDWAIT, set, 0, zero, 8); err != nil && err != unix.EAGAIN && err != unix.EINTR {
		return fmt.Errorf("taking SIGCHLD: %w", err)
	}
	return nil
}

// Stops of a traced task, as the image has them.
const (
	StopSignal = 1 // about to get a signal
	StopEntry  = 2 // before a system call
	StopExit   = 3 // behind one
	StopAsked  = 4 // PTRACE_INTERRUPT, or the first of a task that is traced from its birth
	StopNot    = 5 // it runs
)

// StopKind tells which it is from what it has stopped for and what belongs to it
// (ptrace(2), "Stopped states"; the message of a system call's stops since Linux
// 5.3). 0: another one, with its name.
func StopKind(si *sys.Siginfo, message uint64, seized bool) (kind uint32, name string) {
	const sysgood = 0x80
	trap := si.Signo() == int(unix.SIGTRAP)
	switch code := si.Code(); {
	case trap && (code == int(unix.SIGTRAP)|sysgood || code == int(unix.SIGTRAP) && message != 0):
		switch message {
		case sys.SyscallEntry:
			return StopEntry, ""
		case sys.SyscallExit:
			return StopExit, ""
		}
		return 0, "at a system call"
	case trap && seized && code == int(unix.SIGTRAP)|sys.EventStop<<8:
		return StopAsked, ""
	case code>>8 == sys.EventStop && code > 0:
		return 0, "in a job-control stop"
	case trap && code>>8 > 0 && code>>8 < sys.EventStop:
		return 0, "at an event that its tracer asked to be told of (" + events[code>>8] + ")"
	}
	return StopSignal, ""
}

// events are PTRACE_EVENT_… (include/uapi/linux/ptrace.h).
var events = map[int]string{
	unix.PTRACE_EVENT_FORK: "fork", unix.PTRACE_EVENT_VFORK: "vfork", unix.PTRACE_EVENT_CLONE: "clone",
	unix.PTRACE_EVENT_EXEC: "exec", unix.PTRACE_EVENT_VFORK_DONE: "vfork done", unix.PTRACE_EVENT_EXIT: "exit",
	unix.PTRACE_EVENT_SECCOMP: "seccomp",
}
