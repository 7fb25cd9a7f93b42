package collect

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Tasks that others of the tree trace. Nothing runs in them: what a tracer can
// ask, theirs asks (tracee.Traced); what only they could ask themselves is read
// from the kernel's memory (traced_kernel.go). They stand in ptrace-stops, which
// nothing here leaves or changes.

// Bits of task_struct.ptrace (include/linux/ptrace.h): PT_SEIZED, and where the
// options begin.
const (
	ptSeized   = 1 << 16
	ptOptions  = 3
	ptraceMask = 1<<8 - 1 | 1<<20 | 1<<21 // PTRACE_O_MASK
)

// enterTracers brings the executor into every task that traces others, before any
// other is looked at, and gives the tasks that are traced.
func (c *Collector) enterTracers() (traced []*Task, err error) {
	of := map[int]*Task{} // of threads
	for _, t := range c.Tasks {
		if t.Traced() {
			t.traced = true
			traced = append(traced, t)
		}
		if t.Zombie && t.Status.TracerPid != 0 {
			c.Refuse.Add(fault.Reason{PID: t.PID, Comm: t.Comm, Object: "process", Remedy: "try again", Passing: true,
				Why: fmt.Sprintf("it has ended, and its tracer, pid %d, has not waited for it", t.Status.TracerPid)})
		}
	}
	if len(traced) == 0 {
		return nil, nil
	}
	for _, t := range c.Tasks {
		for _, th := range t.Threads {
			of[th.TID] = t
		}
	}
	c.tracers = map[int]*Task{}
	for _, t := range traced {
		for _, th := range t.Threads {
			by := of[th.Tracer]
			if by == nil {
				continue // it has no tracer: refused below
			}
			c.tracers[th.Tracer], by.tracer = by, true
			if _, err := c.begin(by); err != nil {
				return nil, fmt.Errorf("pid %d (%s): %w", by.PID, by.Comm, err)
			}
		}
	}
	return traced, c.interrupt(traced)
}

// tracedTask collects a process whose threads have tracers in the tree.
func (c *Collector) tracedTask(t *Task) error {
	if err := c.Refuse.Err(); err != nil {
		return err // its tracer cannot be saved, perhaps
	}
	t.tracedBy = map[*tracee.Thread]*fm.Traced{}
	for _, th := range t.Threads {
		if th.Tracer == 0 {
			c.refusePassing(t, "threads", "only some of its threads are traced")
			return nil
		}
		ok, err := c.lookThrough(t, th)
		if err != nil {
			return fmt.Errorf("thread %d: through its tracer: %w", th.TID, err)
		}
		if !ok {
			return nil
		}
	}
	return c.task(t)
}

func (c *Collector) refusePassing(t *Task, object, why string) {
	c.Refuse.Add(fault.Reason{PID: t.PID, Comm: t.Comm, Object: object, Why: why, Remedy: "try again", Passing: true})
}

// through gives a traced thread by its tracer's executor.
func (c *Collector) through(t *Task, th *tracee.Thread) (x tracee.Traced, err error) {
	by := c.tracers[th.Tracer]
	for _, tracer := range by.Threads {
		if tracer.TID == th.Tracer {
			x.E, err = by.guest.Executor(tracer)
		}
	}
	if err != nil {
		return x, err
	}
	if x.E == nil {
		return x, fmt.Errorf("thread %d has no executor", th.Tracer)
	}
	// Its number in its own pid namespace, which is its tracer's.
	st, err := procfs.ReadStatus(t.PID, th.TID)
	x.TID = th.TID
	if n := len(st.NSpid); err == nil && n > 0 {
		x.TID = st.NSpid[n-1]
	}
	return x, err
}

// lookThrough reads of a traced thread what its tracer can ask, and what kind of
// stop it is in.
func (c *Collector) lookThrough(t *Task, th *tracee.Thread) (ok bool, err error) {
	object := fmt.Sprintf("thread %d", th.TID)
	no := func(why, remedy string) (bool, error) {
		c.refuse(t, object, why, remedy)
		return false, nil
	}
	_, task, err := c.Files.KernelTask(t.PID, th.TID)
	if errors.Is(err, kmem.ErrUnavailable) {
		return no(fmt.Sprintf("it is traced by thread %d of the tree, and how cannot be told (%v)", th.Tracer, err), "run fermata as the machine's root, or end the tracer first")
	}
	if err != nil {
		return false, err
	}
	x, err := c.through(t, th)
	if err != nil {
		return false, err
	}
	flags := task.Uint("ptrace")
	tr := &fm.Traced{
		Tracer: proto.Uint32(uint32(th.Tracer)), Seized: proto.Bool(flags&ptSeized != 0),
		Options: proto.Uint32(uint32(flags>>ptOptions) & ptraceMask),
	}
	si, err := x.Siginfo()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ESRCH) {
		return no("it is in a job-control stop that its tracer looks at", "let it continue before the checkpoint")
	}
	if err != nil {
		return false, err
	}
	message, err := x.Message()
	if err != nil {
		return false, err
	}
	kind, name := tracee.StopKind(&si, message, tr.GetSeized())
	ran := c.ran[th]
	if ran != nil {
		kind = tracee.StopNot
		tr.ToSyscall = proto.Bool(ran.toSyscall)
	}
	if kind == 0 {
		c.refusePassing(t, object, "its tracer holds it "+name)
		return false, nil
	}
	tr.Stop = proto.Uint32(kind)
	if kind == tracee.StopSignal {
		tr.Siginfo = append([]byte(nil), si[:]...)
	}
	if _, unreported, err := x.Stopped(false); err != nil {
		return false, err
	} else if unreported && ran == nil {
		tr.Unreported = proto.Bool(true)
	}
	if err := readThrough(x, th); err != nil {
		return false, err
	}
	if ran != nil && !ran.toSyscall {
		th.Regs = tracee.IssuedAgain(th.Regs)
	}
	if t.Process.Pending, err = x.Pending(true); err != nil {
		return false, err
	}
	if tr.Debug, err = debugRegisters(x); err != nil {
		return false, err
	}
	if kind == tracee.StopEntry && !beforeCall(t.At(), &th.Regs) {
		return no("its tracer holds it before a system call that is not where it was issued", "let it continue before the checkpoint")
	}
	if kind == tracee.StopSignal {
		// It can be queued once more only where there is room for it.
		for i := range th.Pending {
			if s := th.Pending[i].Signo(); s == si.Signo() && s < sigRTMin {
				c.refusePassing(t, object, fmt.Sprintf("its tracer holds it with signal %d, and the same one is pending", s))
				return false, nil
			}
		}
	}
	t.tracedBy[th] = tr
	return true, nil
}

const sigRTMin = 32

// readThrough fills in what the tracing thread reads of all others itself.
func readThrough(x tracee.Traced, th *tracee.Thread) (err error) {
	if th.Regs, err = x.Regs(); err != nil {
		return err
	}
	if th.Mask, err = x.Mask(); err != nil {
		return err
	}
	if th.Xstate, err = x.Xstate(); err != nil {
		return err
	}
	if th.Pending, err = x.Pending(false); err != nil {
		return err
	}
	th.Rseq, th.Dispatch = x.Rseq(), x.Dispatch()
	return nil
}

// stillPending sees that no signal has come since its queues were read.
func (c *Collector) stillPending(t *Task) error {
	mask := func(q []sys.Siginfo) (m uint64) {
		for i := range q {
			m |= 1 << (q[i].Signo() - 1)
		}
		return m
	}
	for _, th := range t.Threads {
		st, err := procfs.ReadStatus(t.PID, th.TID)
		if err != nil {
			return fmt.Errorf("thread %d: %w", th.TID, err)
		}
		if st.SigPnd != mask(th.Pending) || st.ShdPnd != mask(t.Process.Pending) {
			c.refusePassing(t, fmt.Sprintf("thread %d", th.TID), "a signal came while it was looked at")
		}
	}
	return c.Refuse.Err()
}

// askTraced puts into the image what other tasks are asked for.
func (c *Collector) askTraced(t *Task, core *criu_core.CoreEntry, x *fm.TaskExtra) error {
	no := func(object, why string) error {
		c.refuse(t, object, why, "end its tracer first")
		return nil
	}
	if t.SharesMM != nil && !t.SharesMM.traced {
		return no("address space", "it is traced, and shares its memory with a task that is not")
	}
	if t.Leader() == nil {
		return no("threads", "it is traced, and its first thread has exited")
	}
	var mme *mm.MmEntry
	if t.SharesMM == nil {
		var err error
		if mme, err = c.mmEntry(t); err != nil {
			return err
		}
	}
	if len(t.rings) > 0 {
		return no("AIO contexts", "it is traced, and has some")
	}
	if timers, err := procfs.ReadTimers(t.At()); err == nil && len(timers) > 0 {
		return no("POSIX timers", "it is traced, and has some")
	}
	t.core = core
	if err := c.kernelProcess(t, core.Tc, x, mme); err != nil {
		return err
	}
	undos, err := c.Files.Undos(t.PID)
	if err != nil {
		return err
	}
	for _, u := range undos {
		x.Undos = append(x.Undos, &fm.SemUndo{Set: proto.Int32(u.Set), Number: proto.Uint32(uint32(u.Number)), Adjust: proto.Int32(int32(u.Adjust))})
	}
	for _, th := range t.Threads {
		tcore := core
		if th.TID != t.PID {
			tcore = &criu_core.CoreEntry{}
		}
		t.threads = append(t.threads, tcore)
		if err := c.tracedThread(t, th, tcore); err != nil {
			return fmt.Errorf("thread %d: %w", th.TID, err)
		}
	}
	if mme != nil {
		c.Image.Add(image.Of("mm", t.PID), mme)
	}
	return nil
}

// tracedThread is askThread of a traced thread.
func (c *Collector) tracedThread(t *Task, th *tracee.Thread, core *criu_core.CoreEntry) error {
	st := t.status[th.TID]
	x := &fm.ThreadExtra{Tid: proto.Uint32(uint32(th.TID)), Xstate: th.Xstate, Traced: t.tracedBy[th]}
	tce := &criu_core.ThreadCoreEntry{Comm: proto.String(st.Name), BlkSigset: proto.Uint64(th.Mask)}
	core.ThreadCore = tce
	if err := threadOutside(th, tce, x); err != nil {
		return err
	}
	tce.Creds = credsOf(st)
	var tc *criu_core.TaskCoreEntry
	if th == t.Threads[0] {
		tc = t.core.GetTc()
	}
	if err := c.cgroupSets(t, th, tc, tce); err != nil {
		return err
	}
	x.Restart = c.restartBlock(t, th)
	tce.SignalsP = queue(th.Pending)
	if err := c.kernelThread(t, th, tce, x); err != nil {
		return err
	}
	setArch(core, &th.Regs, x.GetTidAddress())
	c.Image.Add(image.Of("core", th.TID), core)
	c.Image.Add(image.Of("thread-extra", th.TID), x)
	return nil
}
