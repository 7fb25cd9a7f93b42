package tracee

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Thread is one stopped thread of a target.
type Thread struct {
	TID    int
	Regs   sys.Regs
	Mask   uint64
	Xstate []byte
	Rseq   sys.RseqConfiguration
	// Pending are the signals queued for the thread alone, in order.
	Pending []sys.Siginfo
	// Dispatch: PR_SET_SYSCALL_USER_DISPATCH is on; the executor's calls would
	// go to the program's handler.
	Dispatch bool
	// GroupStop is the signal of the job-control stop the thread was in, or 0.
	GroupStop int
	// Tracer is the thread of the tree that traces this one, by which alone it can
	// be examined; 0 when it is the calling one.
	Tracer  int
	process *Process
	// held is a SIGSTOP that came during the session.
	held    int
	stopped bool
}

// Process is one process of a frozen tree.
type Process struct {
	PID     int
	Threads []*Thread // the leader first, the others in the order of their tids
	Zombie  bool      // exited, not reaped: no thread can be traced
	// Pending are the signals queued for the process as a whole, in order.
	Pending []sys.Siginfo
	// Start is when it began, in clock ticks since boot, 0 when nobody has
	// asked: it tells the process from a later one with its pid.
	Start uint64
	tree  *Tree
	stop  *journal.Entry // the SIGSTOP that is owed to it
}

// journal gives where debts to the thread's process are noted.
func (t *Thread) journal() *journal.Journal {
	if t.process == nil || t.process.tree == nil {
		return nil
	}
	return t.process.tree.journal
}

// hold keeps a SIGSTOP back that came to the thread, to be given to its process
// when that is let go.
func (t *Thread) hold() {
	t.held = int(unix.SIGSTOP)
	p := t.process
	if p == nil || p.stop != nil || t.journal() == nil {
		return
	}
	p.stop = t.journal().Add(journal.Stop, uint64(p.PID), p.start())
}

func (p *Process) start() uint64 {
	if p.Start == 0 {
		if st, err := procfs.ReadStat(p.PID, 0); err == nil {
			p.Start = st.StartTime
		}
	}
	return p.Start
}

// Leader gives the thread whose tid is the pid, or nil when it has exited.
func (p *Process) Leader() *Thread {
	for _, t := range p.Threads {
		if t.TID == p.PID {
			return t
		}
	}
	return nil
}

// Options gives the PTRACE_O_… bits that the tree's threads are traced with.
func (t *Tree) Options() uintptr { return t.opts }

// SuspendSeccomp keeps, as far as that is permitted, the seccomp filters of all
// threads from judging what they do until they are let go.
func (t *Tree) SuspendSeccomp() {
	for _, th := range t.seen {
		_ = sys.SetOptions(th.TID, t.opts|sys.OptSuspendSeccomp)
	}
}

// At gives the pid under which the kernel shows the process's memory, files and
// working directory: that of a leader that has exited shows none of them any
// more, another thread's does.
func (p *Process) At() int {
	if p.Leader() == nil && len(p.Threads) > 0 {
		return p.Threads[0].TID
	}
	return p.PID
}

// Tree is a frozen set of processes. Thaw must be called on every path.
type Tree struct {
	Processes []*Process // in the order they were found: parents before children
	byPID     map[int]*Process
	seen      map[int]*Thread
	waiting   []*Thread
	foreign   []*Thread // whom a thread of the tree traces
	rested    bool      // they have come to rest once
	opts      uintptr
	began     time.Time
	journal   *journal.Journal
}

// FreezeOptions steers Freeze.
type FreezeOptions struct {
	Timeout time.Duration // 0: 10 s
	Exclude map[int]bool  // pids never touched: the controller and its helpers
	Seize   uintptr       // further PTRACE_O_… bits
	Alone   bool          // only the roots themselves, not their descendants
	Journal *journal.Journal
	// Freezer, when not nil, stops the tree meanwhile by other means. Hold comes
	// first; Let once all are seized and interrupted, and they run into their
	// stops. Close is left to the caller, unless Freeze fails.
	Freezer interface {
		Hold() error
		Let() error
		Close() error
	}
}

// ErrAttached: a thread that was asked to stop has not done so for long, and so
// cannot be let go. Once it stops it stands still until the calling OS thread
// ends, which must be soon.
var ErrAttached = errors.New("it does not stop, and is let go only with its tracer")

// letGo is how long such a thread is waited for. On a machine that is busy some
// of it is needed.
const letGo = 2 * time.Second

// ErrTraced: another tracer holds a task.
var ErrTraced = errors.New("already traced")

// Freeze stops the trees below roots: every thread of every descendant. All are
// seized and interrupted first and waited for afterwards, so that threads that
// compete for the same processor do not delay each other; then what appeared
// meanwhile, until nothing new does. When it fails, every task goes on.
func Freeze(roots []int, o FreezeOptions) (*Tree, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	t := &Tree{byPID: map[int]*Process{}, seen: map[int]*Thread{}, opts: sys.OptTraceSysgood | o.Seize, began: time.Now(), journal: o.Journal}
	if err := t.freeze(roots, o); err != nil {
		if o.Freezer != nil {
			if ferr := o.Freezer.Close(); ferr != nil {
				err = errors.Join(err, ferr)
			}
		}
		if terr := t.Thaw(); terr != nil {
			err = errors.Join(err, terr)
		}
		return nil, err
	}
	return t, nil
}

func (t *Tree) freeze(roots []int, o FreezeOptions) error {
	deadline := t.began.Add(o.Timeout)
	frozen := o.Freezer != nil
	if frozen {
		if err := o.Freezer.Hold(); err != nil {
			return err
		}
	}
	for {
		found := false
		// A child found while walking is walked too: the list grows.
		queue := append([]int(nil), roots...)
		walked := map[int]bool{}
		for i := 0; i < len(queue); i++ {
			pid := queue[i]
			if walked[pid] || o.Exclude[pid] {
				continue
			}
			walked[pid] = true
			n, kids, err := t.seizeProcess(pid)
			if err != nil {
				return err
			}
			found = found || n
			if !o.Alone {
				queue = append(queue, kids...)
			}
		}
		if frozen && found && time.Now().Before(deadline) {
			continue // what was being forked when the freezer came
		}
		if frozen {
			frozen, found = false, true
			if err := o.Freezer.Let(); err != nil {
				return err
			}
		}
		if err := step("freeze.await"); err != nil {
			return err
		}
		if err := t.await(deadline); err != nil {
			return err
		}
		if found {
			continue
		}
		// Only now is it known who all belongs to the tree.
		if err := t.checkTracers(); err != nil {
			return err
		}
		if again, err := t.awaitForeign(); err != nil {
			return err
		} else if !again {
			break
		}
	}
	if err := step("freeze.read"); err != nil {
		return err
	}
	return t.read()
}

// seizeProcess seizes the threads of a process that are not yet, and gives its
// children.
func (t *Tree) seizeProcess(pid int) (found bool, kids []int, err error) {
	tids, err := procfs.ReadTasks(pid)
	if err != nil {
		if gone(err) {
			return false, nil, nil
		}
		return false, nil, fmt.Errorf("pid %d: %w", pid, err)
	}
	p := t.byPID[pid]
	if p == nil {
		p = &Process{PID: pid, tree: t}
		t.byPID[pid] = p
		t.journal.Add(journal.Target, uint64(pid))
		t.Processes = append(t.Processes, p)
		found = true
	}
	for _, tid := range tids {
		if t.seen[tid] == nil {
			th := &Thread{TID: tid, process: p}
			faultpoint.At("freeze.seize")
			if err := sys.Seize(tid, t.opts); err != nil {
				var skip bool
				if th.Tracer, skip, err = t.cannotSeize(p, tid, err); err != nil {
					return found, nil, err
				}
				if skip {
					continue
				}
			}
			t.seen[tid] = th
			p.Threads = append(p.Threads, th)
			found = true
			if th.Tracer != 0 {
				t.foreign = append(t.foreign, th)
			} else {
				t.waiting = append(t.waiting, th)
				faultpoint.At("freeze.interrupt")
				if err := sys.Interrupt(tid); err != nil && !errors.Is(err, unix.ESRCH) {
					return found, nil, fmt.Errorf("thread %d: %w", tid, err)
				}
			}
		}
		c, err := procfs.ReadChildren(pid, tid)
		if err != nil && !gone(err) {
			return found, nil, fmt.Errorf("thread %d: children: %w", tid, err)
		}
		kids = append(kids, c...)
	}
	return found, kids, nil
}

// cannotSeize says what a refused seize means: a zombie, a thread that has just
// gone, another tracer, or no permission.
func (t *Tree) cannotSeize(p *Process, tid int, cause error) (tracer int, skip bool, err error) {
	st, err := procfs.ReadStatus(p.PID, tid)
	if err != nil {
		return 0, true, nil
	}
	switch {
	case st.State == 'Z' || st.State == 'X':
		if st.TracerPid != 0 {
			return 0, false, untold(p.PID, tid, &st)
		}
		if tid == p.PID {
			p.Zombie = true
		}
		return 0, true, nil
	case st.TracerPid != 0:
		return st.TracerPid, false, nil
	case errors.Is(cause, unix.ESRCH):
		return 0, true, nil
	case errors.Is(cause, unix.EPERM):
		if st.Kthread {
			return 0, false, fault.Errorf(fault.ErrPermission, "pid %d (%s) is a kernel thread: it has no program to save", p.PID, st.Name)
		}
		return 0, false, fault.Errorf(fault.ErrPermission, "pid %d (%s, uid %d): not allowed to trace it: run as root or as its user", p.PID, st.Name, st.Uid[0])
	}
	return 0, false, fmt.Errorf("thread %d: seize: %w", tid, cause)
}

func gone(err error) bool {
	return errors.Is(err, procfs.ErrGone) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// await waits until every interrupted thread has stopped or gone.
func (t *Tree) await(deadline time.Time) error {
	pause := 20 * time.Microsecond
	var looked time.Time
	for {
		left := t.waiting[:0]
		for _, th := range t.waiting {
			done, err := t.settle(th)
			if err != nil {
				return err
			}
			if !done {
				left = append(left, th)
			}
		}
		progressed := len(left) < len(t.waiting)
		t.waiting = left
		if len(left) == 0 {
			return nil
		}
		if progressed {
			pause = 20 * time.Microsecond
			continue
		}
		if time.Now().After(deadline) {
			return t.stuck(left)
		}
		sys.Nap(pause)
		pause = min(pause*2, 2*time.Millisecond)
		// Looking costs each of them some microseconds: it shall not keep the
		// tracer from who stops meanwhile.
		if began := time.Now(); pause == 2*time.Millisecond && began.After(looked) {
			t.releaseVfork(left)
			looked = time.Now().Add(4 * time.Since(began))
		}
	}
}

// settle takes one report of a thread: done when it has stopped as asked, or is
// gone. A signal that was on its way is delivered first; the stop follows
// before the program runs another instruction.
func (t *Tree) settle(th *Thread) (bool, error) {
	for {
		st, changed, err := sys.Poll(th.TID)
		if err != nil {
			if errors.Is(err, unix.ECHILD) {
				t.drop(th)
				return true, nil
			}
			return false, fmt.Errorf("thread %d: wait: %w", th.TID, err)
		}
		if !changed {
			return false, nil
		}
		switch {
		case st.Exited() || st.Signaled():
			t.drop(th)
			return true, nil
		case sys.IsEventStop(st):
			if s := st.StopSignal(); s != unix.SIGTRAP {
				th.GroupStop = int(s)
			}
			th.stopped = true
			return true, nil
		case st.Stopped():
			if err := sys.Cont(th.TID, int(st.StopSignal())); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("thread %d: %w", th.TID, err)
			}
		}
	}
}

func (t *Tree) drop(th *Thread) {
	delete(t.seen, th.TID)
	for _, p := range t.Processes {
		for i, x := range p.Threads {
			if x == th {
				p.Threads = append(p.Threads[:i:i], p.Threads[i+1:]...)
				return
			}
		}
	}
}

// releaseVfork lets a vfork child run while its parent waits for it in the
// kernel: the parent cannot stop before the child has called execve or exited.
func (t *Tree) releaseVfork(left []*Thread) {
	for _, th := range left {
		// wait_for_vfork_done (kernel/fork.c) is a wait that only SIGKILL ends.
		if st, err := procfs.ReadStat(th.process.PID, th.TID); err != nil || st.State != 'D' {
			continue
		}
		kids, err := procfs.ReadChildren(th.process.PID, th.TID)
		if err != nil {
			continue
		}
		for _, pid := range kids {
			p := t.byPID[pid]
			if p == nil {
				continue
			}
			c := p.Leader()
			if c == nil || !c.stopped {
				continue
			}
			if same, err := sys.Kcmp(th.TID, c.TID, sys.KcmpVM, 0, 0); err != nil || same != 0 {
				continue
			}
			// Run for a moment, then stop again.
			c.stopped = false
			c.GroupStop = 0
			if sys.Cont(c.TID, 0) == nil {
				time.Sleep(time.Millisecond)
				_ = sys.Interrupt(c.TID)
			}
			t.waiting = append(t.waiting, c)
		}
	}
}

func (t *Tree) stuck(left []*Thread) error {
	th := left[0]
	what := ""
	if st, err := procfs.ReadStat(th.TID, 0); err == nil {
		what = fmt.Sprintf(" (%s, state %c)", st.Comm, st.State)
	}
	return fault.Errorf(fault.ErrTimeout, "thread %d%s did not stop within %v, nor did %d others; nothing was changed", th.TID, what, time.Since(t.began).Round(time.Millisecond), len(left)-1)
}

// xstateMax holds every extended state there is (AMX tiles: about 11 KiB).
const xstateMax = 16 << 10

// read takes the state that only a tracer sees, of every thread.
func (t *Tree) read() error {
	buf := make([]byte, xstateMax)
	procs := t.Processes[:0]
	for _, p := range t.Processes {
		if len(p.Threads) == 0 {
			// Also one found as a zombie: its parent may have waited for it
			// before it stopped itself.
			if st, err := procfs.ReadStat(p.PID, 0); err != nil || st.State != 'Z' {
				delete(t.byPID, p.PID)
				continue
			}
		}
		// A leader that has exited is a zombie, too: its process lives as long
		// as a thread of it does.
		p.Zombie = len(p.Threads) == 0
		procs = append(procs, p)
		t.dropWorkers(p)
		for _, th := range p.Threads {
			if th.Tracer != 0 {
				continue // through its tracer (Traced)
			}
			if err := th.read(p.At(), buf); err != nil {
				return err
			}
		}
		if len(p.Threads) > 0 && p.Threads[0].Tracer == 0 {
			var err error
			if p.Pending, err = sys.PeekSignals(p.Threads[0].TID, true); err != nil {
				return fmt.Errorf("pid %d: pending signals: %w", p.PID, err)
			}
		}
	}
	t.Processes = procs
	return nil
}

// dropWorkers lets go of the threads that io_uring has made in a process: they
// never run a program's instruction, so nothing can run in them. What they work
// for is a file or mapping of the process, and is dealt with by its name. They
// have no registers (copy_thread clears the two of them).
func (t *Tree) dropWorkers(p *Process) {
	for _, th := range slices.Clone(p.Threads) {
		if r, err := sys.GetRegs(th.TID); err != nil || !unplaced(&r) {
			continue
		}
		if st, err := procfs.ReadStat(p.PID, th.TID); err != nil || st.Flags&procfs.PFIOWorker == 0 {
			continue
		}
		if err := sys.Detach(th.TID, 0); err == nil || errors.Is(err, unix.ESRCH) {
			p.Threads = slices.DeleteFunc(p.Threads, func(x *Thread) bool { return x == th })
		}
	}
}

func (th *Thread) read(pid int, buf []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("thread %d: reading registers: %w", th.TID, err)
		}
	}()
	if th.Regs, err = sys.GetRegs(th.TID); err != nil {
		return err
	}
	if th.Mask, err = sys.GetSigmask(th.TID); err != nil {
		return err
	}
	th.Dispatch = sys.UserDispatch(th.TID)
	if deaf(&th.Regs) {
		if err := th.reissue(pid); err != nil {
			return err
		}
	}
	x, err := sys.GetXstate(th.TID, buf)
	if err != nil {
		return err
	}
	th.Xstate = append([]byte(nil), x...)
	if th.Pending, err = sys.PeekSignals(th.TID, false); err != nil {
		return err
	}
	if th.Rseq, err = sys.GetRseq(th.TID); err != nil {
		if !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		th.Rseq = sys.RseqConfiguration{} // a kernel before 5.13
	}
	if th.Rseq.Pointer != 0 {
		read := func(a uint64, b []byte) error { return sys.ReadMem(pid, a, b) }
		if r, in := rseqAbort(th.Regs, read, th.Rseq.Pointer); in {
			th.Regs = r
			return sys.SetRegs(th.TID, &r)
		}
	}
	return nil
}

// reissue makes a thread whose call our stop broke off with EINTR issue it
// again, unless a signal of its own is about to reach it: then the error is
// what it would have seen anyway.
func (th *Thread) reissue(pid int) error {
	st, err := procfs.ReadStatus(pid, th.TID) // whichever of its threads pid is
	if err != nil {
		return err
	}
	if (st.SigPnd|st.ShdPnd)&^th.Mask != 0 {
		return nil
	}
	th.Regs = again(th.Regs)
	return sys.SetRegs(th.TID, &th.Regs)
}

// Drop leaves a process out that has ended.
func (t *Tree) Drop(pid int) {
	t.Processes = slices.DeleteFunc(t.Processes, func(p *Process) bool { return p.PID == pid && len(p.Threads) == 0 })
	delete(t.byPID, pid)
}

// Process gives a process of the tree, or nil.
func (t *Tree) Process(pid int) *Process { return t.byPID[pid] }

// Began gives when the first task was asked to stop.
func (t *Tree) Began() time.Time { return t.began }

// Thaw lets every task go on, each with the signals it is owed. It is harmless
// to call twice.
func (t *Tree) Thaw() error { return t.release(0) }

// ThawStopped lets every task go into a job-control stop.
func (t *Tree) ThawStopped() error { return t.release(int(unix.SIGSTOP)) }

func (t *Tree) release(sig int) error {
	var errs []error
	for _, p := range t.Processes {
		if stop := p.owed(); stop || sig != 0 && !p.Zombie && len(p.Threads) > 0 && !p.Traced() {
			faultpoint.At("thaw.stop")
			_ = unix.Kill(p.PID, unix.SIGSTOP)
		}
		p.stop.Done()
		p.stop = nil
		for _, th := range p.Threads {
			if !th.stopped {
				continue
			}
			th.stopped = false
			faultpoint.At("thaw.detach")
			if err := sys.Detach(th.TID, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("thread %d: detach: %w", th.TID, err))
			}
		}
	}
	faultpoint.At("thaw.detached")
	t.settleStops()
	end := time.Now().Add(letGo)
	for _, th := range t.waiting {
		// Interrupted but not stopped: it can only be let go from a stop.
		for {
			if done, err := t.settle(th); done || err != nil {
				_ = sys.Detach(th.TID, 0)
				break
			}
			if time.Now().After(end) {
				errs = append(errs, fmt.Errorf("thread %d: %w", th.TID, ErrAttached))
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	t.waiting = nil
	return errors.Join(errs...)
}

// settleStops waits, for some milliseconds, until what was in a job-control stop
// is seen in it again: a thread goes from a ptrace stop into the other by itself,
// without leaving the kernel, but by way of a running one (__ptrace_unlink).
func (t *Tree) settleStops() {
	end := time.Now().Add(20 * time.Millisecond)
	for _, p := range t.Processes {
		for _, th := range p.Threads {
			for th.GroupStop != 0 && time.Now().Before(end) {
				if st, err := procfs.ReadStat(p.PID, th.TID); err != nil || st.State != 'R' {
					break
				}
				sys.Nap(50 * time.Microsecond)
			}
		}
	}
}

// owed tells whether the process must be stopped because a SIGSTOP came
// meanwhile. A SIGCONT that is still queued came after it (each of the two
// removes the other from the queue), and voids it.
func (p *Process) owed() bool {
	held := false
	for _, th := range p.Threads {
		held = held || th.held != 0
		th.held = 0
	}
	if !held {
		return false
	}
	for i, th := range p.Threads {
		own, _ := sys.PeekSignals(th.TID, false)
		if i == 0 {
			shared, _ := sys.PeekSignals(th.TID, true)
			own = append(own, shared...)
		}
		for j := range own {
			if own[j].Signo() == int(unix.SIGCONT) {
				return false
			}
		}
	}
	return true
}

// Kill ends every process of the tree with SIGKILL and takes the tracer's
// reports, so that their parents get theirs.
func (t *Tree) Kill() error {
	var errs []error
	var doom []*journal.Entry
	if t.journal != nil {
		// Should we die in the middle, the guardian finishes it: half a tree is
		// worse than none.
		for _, p := range t.tracedFirst() {
			if !p.Zombie {
				doom = append(doom, t.journal.Add(journal.Doom, uint64(p.PID), p.start()))
			}
		}
		faultpoint.At("kill.noted")
		doom = append(doom, t.journal.Add(journal.Sentence))
	}
	for _, p := range t.tracedFirst() {
		if p.Zombie {
			continue
		}
		faultpoint.At("kill.one")
		if err := unix.Kill(p.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("pid %d: kill: %w", p.PID, err))
		}
	}
	faultpoint.At("kill.all")
	for _, d := range doom {
		d.Done()
	}
	for _, p := range t.Processes {
		// The leader's report comes once its threads are gone.
		for i := len(p.Threads) - 1; i >= 0; i-- {
			th := p.Threads[i]
			th.stopped = false
			for th.Tracer == 0 {
				st, err := sys.WaitSched(th.TID)
				if err != nil || st.Exited() || st.Signaled() {
					break
				}
			}
		}
	}
	return errors.Join(errs...)
}

// Self gives the calling process and its ancestors: pids that cannot be frozen
// from here.
func Self() map[int]bool {
	out := map[int]bool{}
	for pid := os.Getpid(); pid > 0 && !out[pid]; {
		out[pid] = true
		st, err := procfs.ReadStat(pid, 0)
		if err != nil {
			break
		}
		pid = st.PPid
	}
	return out
}
