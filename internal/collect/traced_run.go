package collect

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Traced tasks that run: those that sleep in a system call, for whatever would run
// the program comes to its next stop by itself while its tracer stands still.
// Their tracer interrupts them. What it would see of that is taken away: the
// report, and, where it watches system calls, the end of the one that was broken
// off, which is issued again. Should this process die between the interrupt and
// the note of that, it sees what it sees when a task is stopped and continued.

// workTrace is SYSCALL_WORK_SYSCALL_TRACE (include/linux/thread_info.h, Linux
// 5.11): the task stops at system calls.
const workTrace = 1 << 2

// comeToRest is how long an interrupted task may take to stop.
const comeToRest = 500 * time.Millisecond

// running is a traced thread that its tracer has interrupted.
type running struct {
	t         *Task
	th        *tracee.Thread
	x         tracee.Traced
	toSyscall bool
}

// interrupt stops what runs under its tracer.
func (c *Collector) interrupt(traced []*Task) error {
	c.ran = map[*tracee.Thread]*running{}
	var all []*running
	for _, t := range traced {
		for _, th := range t.Threads {
			st, err := procfs.ReadStat(t.PID, th.TID)
			if err != nil {
				return fmt.Errorf("thread %d: %w", th.TID, err)
			}
			if st.State == 't' || c.tracers[th.Tracer] == nil {
				continue
			}
			r, err := c.interruptible(t, th)
			if err != nil {
				return fmt.Errorf("thread %d: %w", th.TID, err)
			}
			if r != nil {
				all = append(all, r)
			}
		}
	}
	if c.Refuse.Err() != nil {
		return nil // before anything is done
	}
	for _, r := range all {
		faultpoint.At("traced.interrupt")
		if err := r.x.Interrupt(); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		faultpoint.At("traced.interrupted")
	}
	return c.note(all)
}

// interruptible gives a traced thread that can be interrupted; nil when it was
// refused.
func (c *Collector) interruptible(t *Task, th *tracee.Thread) (*running, error) {
	object := fmt.Sprintf("thread %d", th.TID)
	no := func(why string) (*running, error) {
		c.refuse(t, object, fmt.Sprintf("it runs under its tracer, thread %d of the tree, %s", th.Tracer, why), "stop it in the debugger, or end that")
		return nil, nil
	}
	by := c.tracers[th.Tracer]
	if by.guest == nil {
		return nil, nil // refused before
	}
	for _, st := range by.status {
		if st.Seccomp != 0 {
			return no("which runs under seccomp")
		}
	}
	_, task, err := c.Files.KernelTask(t.PID, th.TID)
	if errors.Is(err, kmem.ErrUnavailable) {
		return no(fmt.Sprintf("and how cannot be told (%v)", err))
	}
	if err != nil {
		return nil, err
	}
	r := &running{t: t, th: th, toSyscall: task.Uint("thread_info.syscall_work")&workTrace != 0}
	if task.Uint("ptrace")&ptSeized == 0 {
		return no("which has not seized it, and so cannot interrupt it (PTRACE_INTERRUPT)")
	}
	r.x, err = c.through(t, th)
	return r, err
}

// note waits for the stops that were asked for, and sees to it that each task
// whose stop is ours goes on from it.
func (c *Collector) note(all []*running) error {
	end := time.Now().Add(comeToRest)
	mine := map[*running]tracee.Stop{}
	// SIGCHLD came for stops that the tracer is to hear of, or before.
	told := map[*Task]bool{}
	for _, r := range all {
		by := c.tracers[r.th.Tracer]
		for {
			st, err := procfs.ReadStat(r.t.PID, r.th.TID)
			if err != nil || st.State == 'Z' || st.State == 'X' || time.Now().After(end) {
				c.refusePassing(r.t, fmt.Sprintf("thread %d", r.th.TID), "it does not stop for its tracer")
				return nil
			}
			if st.State == 't' {
				break
			}
			sys.Nap(50 * time.Microsecond)
		}
		st, ok, err := r.stop()
		if err != nil {
			return err
		}
		if ok {
			mine[r] = st
		} else {
			told[by] = true
		}
		if sigchldPending(by) {
			told[by] = true
		}
	}
	for _, r := range all {
		st, ok := mine[r]
		if !ok {
			continue
		}
		by := c.tracers[r.th.Tracer]
		st.Quiet = !told[by]
		o, err := c.owe(by, r.x.E)
		if err == nil {
			err = o.Add(r.x, st)
		}
		if err != nil {
			return fmt.Errorf("thread %d: %w", r.th.TID, err)
		}
		faultpoint.At("traced.owed")
		if err := r.x.Take(); err != nil {
			return fmt.Errorf("thread %d: %w", r.th.TID, err)
		}
		c.ran[r.th] = r
		if st.Quiet {
			if err := r.x.Quiet(); err != nil {
				return err
			}
		}
		faultpoint.At("traced.taken")
	}
	return c.newborn(all)
}

// stop looks at the stop that a thread has come into: whether it is there because
// it was interrupted, and how it goes on.
func (r *running) stop() (st tracee.Stop, mine bool, err error) {
	si, err := r.x.Siginfo()
	if err != nil {
		return st, false, nil // a job-control stop: refused when it is looked at
	}
	message, err := r.x.Message()
	if err != nil {
		return st, false, err
	}
	regs, err := r.x.Regs()
	if err != nil {
		return st, false, err
	}
	if st.Mask, err = r.x.Mask(); err != nil {
		return st, false, err
	}
	st.Request = sys.PtraceCont
	if r.toSyscall {
		st.Request = sys.PtraceSyscall
	}
	switch kind, _ := tracee.StopKind(&si, message, true); {
	case kind == tracee.StopAsked:
		return st, true, nil
	case kind == tracee.StopExit && r.toSyscall && tracee.BrokenOff(&regs):
		regs = tracee.Reissued(regs)
		st.Reissue = sys.EncodeRegs(&regs)
		return st, true, nil
	}
	return st, false, nil
}

// sigchldPending tells whether a SIGCHLD was pending when the task was stopped.
func sigchldPending(t *Task) bool {
	has := func(q []sys.Siginfo) bool {
		for i := range q {
			if q[i].Signo() == int(unix.SIGCHLD) {
				return true
			}
		}
		return false
	}
	for _, th := range t.Threads {
		if has(th.Pending) {
			return true
		}
	}
	return has(t.Process.Pending)
}

// newborn sees that nothing was born before the tasks were interrupted that the
// tree does not have.
func (c *Collector) newborn(all []*running) error {
	for _, r := range all {
		kids, err := procfs.ReadChildren(r.t.PID, r.th.TID)
		if err != nil {
			return fmt.Errorf("thread %d: %w", r.th.TID, err)
		}
		tids, err := procfs.ReadTasks(r.t.PID)
		if err != nil {
			return fmt.Errorf("pid %d: %w", r.t.PID, err)
		}
		for _, k := range kids {
			if c.Tree.Process(k) == nil {
				c.refusePassing(r.t, fmt.Sprintf("pid %d", k), "it was born while the tree was being stopped")
			}
		}
		if len(tids) != len(r.t.Threads) {
			c.refusePassing(r.t, "threads", "some came or went while the tree was being stopped")
		}
	}
	return nil
}

// owe gives the list of what a tracer's thread owes.
func (c *Collector) owe(by *Task, e *tracee.Executor) (*tracee.Owing, error) {
	if o := c.owing[e]; o != nil {
		return o, nil
	}
	o, err := by.guest.Owe(e)
	if err != nil {
		return nil, err
	}
	if c.owing == nil {
		c.owing = map[*tracee.Executor]*tracee.Owing{}
	}
	c.owing[e] = o
	by.owes = true
	return o, nil
}

// LetGo lets the traced tasks go on that were interrupted, and releases their
// tracers' executors. It is harmless to call twice.
func (c *Collector) LetGo() error {
	var errs []error
	for e, o := range c.owing {
		faultpoint.At("traced.pay")
		if err := o.Pay(); err != nil {
			errs = append(errs, fmt.Errorf("tracees of thread %d: %w", e.TID, err))
		}
		faultpoint.At("traced.paid")
	}
	c.owing = nil
	for _, t := range c.Tasks {
		if t.owes {
			t.owes = false
			errs = append(errs, t.guest.Release())
		}
	}
	return errors.Join(errs...)
}

// Forget is LetGo when every task has been killed.
func (c *Collector) Forget() {
	c.owing = nil
	for _, t := range c.Tasks {
		if t.owes {
			t.owes = false
			t.guest.Forget()
		}
	}
}

// owes tells whether a guest's task has something owing.
func (c *Collector) owes(g *tracee.Guest) bool {
	for _, t := range c.Tasks {
		if t.owes && t.guest == g {
			return true
		}
	}
	return false
}

// paused does something with the threads of a task that has executors in them
// while they are stopped.
func (t *Task) paused(do func() error) (err error) {
	if !t.owes {
		return do()
	}
	for _, th := range t.Threads {
		e, eerr := t.guest.Executor(th)
		if eerr == nil {
			eerr = e.Pause()
		}
		if eerr != nil {
			return errors.Join(err, eerr)
		}
		defer func() { err = errors.Join(err, e.Resume()) }()
	}
	return do()
}

// tracingThreads counts the threads of a task that trace others.
func (t *Task) tracingThreads(tracers map[int]*Task) (n int) {
	for _, th := range t.Threads {
		if tracers[th.TID] == t {
			n++
		}
	}
	return n
}
