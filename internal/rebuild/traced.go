package rebuild

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Tasks that others of the tree trace are made like all others, and then change
// their tracer: this process lets them go into a pause(2) that nothing ends, with
// everything blocked, and their tracer's thread, which still runs the executor and
// has its own credentials by then, takes them (PTRACE_SEIZE, or PTRACE_ATTACH
// where it was that or PTRACE_TRACEME). It gives them their registers, leads them
// to the stop that they were in, and waits for that if it had. Until the end they
// are traced with PTRACE_O_EXITKILL, too, as their tracer is.

// traced tells whether the process has a tracer in the tree.
func (p *proc) traced() bool {
	return slices.ContainsFunc(p.threads, func(t *thread) bool { return t.extra.Traced != nil })
}

// checkTracers sees that every tracer is there and is not traced itself.
func checkTracers(procs []*proc) error {
	free := map[int]bool{}
	for _, p := range procs {
		for _, t := range p.live() {
			free[t.tid] = t.extra.Traced == nil
		}
	}
	for _, p := range procs {
		for _, t := range p.threads {
			tr := t.extra.Traced
			if tr == nil {
				continue
			}
			switch {
			case !free[int(tr.GetTracer())] || t.exited():
				return fault.Errorf(fault.ErrDamaged, "thread %d: its tracer %d is none", t.tid, tr.GetTracer())
			case tr.GetStop() < tracee.StopSignal || tr.GetStop() > tracee.StopNot || tr.GetStop() == tracee.StopNot && !tr.GetSeized() || tr.GetStop() == tracee.StopSignal && len(tr.GetSiginfo()) != len(sys.Siginfo{}):
				return fault.Errorf(fault.ErrDamaged, "thread %d: in a stop of kind %d", t.tid, tr.GetStop())
			}
		}
		if p.traced() && slices.ContainsFunc(p.threads, func(t *thread) bool { return t.extra.Traced == nil }) {
			return fault.Errorf(fault.ErrDamaged, "pid %d: only some of its threads are traced", p.pid)
		}
	}
	return nil
}

// settling gives the processes in the order in which they get their last state:
// children before their parents, and what is traced before its tracer.
func (b *builder) settling() (order []*proc) {
	done := map[*proc]bool{}
	var add func(p *proc)
	add = func(p *proc) {
		if done[p] || p.zombie {
			return
		}
		done[p] = true
		for _, x := range b.tracees(p) {
			add(x.p)
		}
		order = append(order, p)
	}
	for i := len(b.procs) - 1; i >= 0; i-- {
		add(b.procs[i])
	}
	return order
}

// ofTracer is a traced thread with its process and the thread that traces it.
type ofTracer struct {
	p     *proc
	t, by *thread
}

// tracees gives the threads that a process's threads trace.
func (b *builder) tracees(by *proc) (all []ofTracer) {
	for _, p := range b.procs {
		for _, t := range p.threads {
			for _, tt := range by.threads {
				if t.extra.Traced != nil && int(t.extra.Traced.GetTracer()) == tt.tid {
					all = append(all, ofTracer{p, t, tt})
				}
			}
		}
	}
	return all
}

// queueStops queues the signals that tracers hold their tracees with, before what
// else is pending: led on, each gets its own first. SIGSTOP, which cannot be
// blocked, comes later.
func (b *builder) queueStops(p *proc) error {
	for _, t := range p.threads {
		si := t.extra.GetTraced().GetSiginfo()
		if len(si) == 0 || le.Uint32(si) == uint32(unix.SIGSTOP) {
			continue
		}
		t.exec.Reset()
		if _, err := t.exec.Call(unix.SYS_RT_TGSIGQUEUEINFO, uint64(p.pid), uint64(t.tid), uint64(le.Uint32(si)), t.exec.Put(si)); err != nil {
			return fmt.Errorf("thread %d: signal %d: %w", t.tid, le.Uint32(si), err)
		}
	}
	return nil
}

// park lets the threads of a traced process go to where they wait for their
// tracer.
func (b *builder) park(p *proc, insn uint64) error {
	for _, t := range p.threads {
		r := pausing(t.regs, insn)
		if err := sys.SetRegs(t.exec.TID, &r); err != nil {
			return fmt.Errorf("thread %d: registers: %w", t.tid, err)
		}
		if err := sys.SetSigmask(t.exec.TID, ^uint64(0)); err != nil {
			return fmt.Errorf("thread %d: mask: %w", t.tid, err)
		}
		if err := sys.Detach(t.exec.TID, 0); err != nil {
			return fmt.Errorf("thread %d: detach: %w", t.tid, err)
		}
	}
	return nil
}

// traceAgain makes the threads of a process the tracers that they were.
func (b *builder) traceAgain(by *proc, insns map[*proc]uint64) error {
	all := b.tracees(by)
	for _, x := range all {
		if err := x.trace(insns[x.p.vmOwner]); err != nil {
			return fmt.Errorf("thread %d: tracing thread %d again: %w", x.by.tid, x.t.tid, err)
		}
	}
	if len(all) == 0 {
		return nil
	}
	// Each stop has sent SIGCHLD. If one was pending before, it still is.
	for _, s := range by.core.GetTc().GetSignalsS().GetSignals() {
		if si := s.GetSiginfo(); len(si) >= 4 && le.Uint32(si) == uint32(unix.SIGCHLD) {
			return nil
		}
	}
	for {
		e := by.Executor()
		set := e.Put(le.AppendUint64(nil, 1<<(unix.SIGCHLD-1)))
		zero, _ := e.Data(16)
		if _, err := e.Call(unix.SYS_RT_SIGTIMEDWAIT, set, 0, zero, 8); err == unix.EAGAIN {
			return nil
		} else if err != nil && err != unix.EINTR {
			return fmt.Errorf("taking SIGCHLD: %w", err)
		}
	}
}

// trace takes one thread and leads it to its stop.
func (o ofTracer) trace(insn uint64) error {
	tr := o.t.extra.GetTraced()
	x := tracee.Traced{E: o.by.exec, TID: o.t.tid}
	options := tr.GetOptions()
	if tr.GetSeized() {
		if err := x.Seize(options | sys.OptExitKill); err != nil {
			return err
		}
		if err := x.Interrupt(); err != nil {
			return err
		}
	} else if err := x.Attach(); err != nil {
		return err
	}
	if err := stopped(x, 0); err != nil {
		return err
	}
	if !tr.GetSeized() {
		if err := x.SetOptions(options | sys.OptExitKill); err != nil {
			return err
		}
	}
	if err := o.lead(x, insn); err != nil {
		return err
	}
	if err := x.SetMask(o.t.core.GetThreadCore().GetBlkSigset()); err != nil {
		return err
	}
	if err := collect.SetDebugRegisters(x, tr.GetDebug()); err != nil {
		return fmt.Errorf("debug registers: %w", err)
	}
	if options&sys.OptExitKill == 0 {
		if err := x.SetOptions(options); err != nil {
			return err
		}
	}
	if !tr.GetUnreported() {
		if err := x.Take(); err != nil {
			return err
		}
	}
	switch {
	case tr.GetStop() != tracee.StopNot:
		return nil
	case tr.GetToSyscall():
		return x.ContToCall()
	}
	return x.Cont()
}

// lead brings a thread that has just been taken, and stands in its first stop,
// into the one that it was in, with its registers.
func (o ofTracer) lead(x tracee.Traced, insn uint64) error {
	tr, raw := o.t.extra.GetTraced(), o.t.raw
	syscall := func(r sys.Regs) error {
		if err := x.SetRegs(&r); err != nil {
			return err
		}
		return next(x, x.ContToCall, 0)
	}
	switch tr.GetStop() {
	case tracee.StopSignal:
		sig := int(le.Uint32(tr.GetSiginfo()))
		if err := x.SetRegs(&raw); err != nil {
			return err
		}
		switch {
		case sig != int(unix.SIGSTOP):
			if err := x.SetMask(^uint64(1 << (sig - 1))); err != nil {
				return err
			}
			if err := next(x, x.Cont, sig); err != nil {
				return err
			}
		case tr.GetSeized():
			if err := x.Kill(o.p.pid, sig); err != nil {
				return err
			}
			if err := next(x, x.Cont, sig); err != nil {
				return err
			}
		}
		return x.SetSiginfo(tr.GetSiginfo())
	case tracee.StopNot:
		if tr.GetToSyscall() && tracee.BrokenOff(&raw) {
			// Its tracer has seen it enter its call.
			return syscall(tracee.Reissued(raw))
		}
	case tracee.StopEntry:
		if err := syscall(issuing(raw)); err != nil {
			return err
		}
	case tracee.StopExit:
		// Before and behind one that does nothing.
		if err := syscall(calling(raw, insn, unix.SYS_GETPID)); err != nil {
			return err
		}
		if err := next(x, x.ContToCall, 0); err != nil {
			return err
		}
	}
	return x.SetRegs(&raw)
}

// next takes the report of the stop that a thread is in, lets it go on and waits
// for the next one: with a signal, when sig is not 0.
func next(x tracee.Traced, on func() error, sig int) error {
	if err := x.Take(); err != nil {
		return err
	}
	if err := on(); err != nil {
		return err
	}
	return stopped(x, sig)
}

func stopped(x tracee.Traced, sig int) error {
	status, ok, err := x.Stopped(true)
	switch {
	case err != nil:
		return err
	case !ok || sig != 0 && status != sig:
		return fmt.Errorf("it stopped with %#x instead of signal %d", status, sig)
	}
	return nil
}
