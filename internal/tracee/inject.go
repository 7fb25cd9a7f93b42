package tracee

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Guest is a process with a region in its address space and executors in any
// of its stopped threads.
type Guest struct {
	PID     int
	Region  *Region
	gad     Gadgets
	first   *Thread
	execs   map[*Thread]*Executor
	next    int
	maps    []procfs.VMA
	sharers map[int]bool // other processes with executors here
	debts   []*journal.Entry
	// attached: the region may be mapped in the process.
	attached bool
	aide     *Thread // a thread of our own
	// bare is the id of a segment of which only the first view is mapped, -1 when
	// both are.
	bare int
}

// Executor gives the executor of a stopped thread of the guest, starting it
// there when it is not running yet.
func (g *Guest) Executor(t *Thread) (*Executor, error) {
	e, err := g.Lazy(t)
	if err != nil {
		return nil, err
	}
	if e.entering {
		e.entering = false
		return e, e.Wait()
	}
	return e, nil
}

// Lazy starts the executor in a thread without waiting for it, unless it runs
// there already; Executor waits.
func (g *Guest) Lazy(t *Thread) (*Executor, error) {
	if e := g.execs[t]; e != nil {
		return e, nil
	}
	e, err := g.Enter(t)
	if err == nil {
		e.entering = true
	}
	return e, err
}

// Release takes the executor out of every thread and the region out of the
// process; each thread is stopped again with the registers and mask it had.
func (g *Guest) Release() error {
	if g == nil || g.Region == nil {
		return nil
	}
	var errs []error
	var out []*Executor
	if g.needsAide() {
		if err := g.spawn(); err != nil {
			errs = append(errs, err)
		}
	}
	for t, e := range g.execs {
		err := step("release.interrupt")
		if err == nil && !e.halted {
			err = sys.Interrupt(t.TID)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("thread %d: %w", t.TID, err))
			continue
		}
		out = append(out, e)
	}
	var stopped []*Thread
	for _, e := range out {
		faultpoint.At("release.stop")
		if err := e.stop(); err != nil {
			errs = append(errs, err)
			continue
		}
		stopped = append(stopped, e.thread)
	}
	// Who is stopped goes home, one of them last; who is not goes by itself when
	// the region's owner word says that we are gone.
	inside := len(stopped) < len(g.execs)
	last, w := g.exit(stopped)
	for _, t := range stopped {
		if t == last || t == g.aide {
			continue
		}
		if err := t.restore(); err != nil {
			errs = append(errs, err)
			inside = true
		}
	}
	clean := false
	switch {
	case last == nil:
		// Where no thread has room for a frame now, the region stays, owed, until
		// the guardian finds one that has.
		clean = len(g.execs) == 0
	case inside && last == g.aide:
		errs = append(errs, g.aide.restore(), g.dismiss())
	case inside:
		errs = append(errs, last.restore())
	default:
		var err error
		if last == g.aide {
			err = g.detachAndExit()
		} else {
			err = g.detachRegion(last, w)
		}
		clean = err == nil
		errs = append(errs, err)
	}
	g.close(clean)
	return errors.Join(errs...)
}

// close gives the region up; clean says that no task has it any more.
func (g *Guest) close(clean bool) {
	r := g.Region
	if !clean {
		r.abandon()
	} else {
		r.Close()
		for _, d := range g.debts {
			d.Done()
		}
		r.debt.Done()
	}
	g.Region = nil
}

// Forget gives the region up when the process has ended.
func (g *Guest) Forget() {
	if g != nil && g.Region != nil {
		g.close(true)
	}
}

// restore gives a thread its mask and registers back. With them it keeps its
// restart block: nothing that ran in between used one.
func (t *Thread) restore() error {
	if err := step("restore.mask"); err != nil {
		return fmt.Errorf("thread %d: mask: %w", t.TID, err)
	}
	if err := sys.SetSigmask(t.TID, t.Mask); err != nil {
		return fmt.Errorf("thread %d: mask: %w", t.TID, err)
	}
	if err := step("restore.registers"); err != nil {
		return fmt.Errorf("thread %d: registers: %w", t.TID, err)
	}
	if err := sys.SetRegs(t.TID, &t.Regs); err != nil {
		return fmt.Errorf("thread %d: registers: %w", t.TID, err)
	}
	faultpoint.At("restore.done")
	return nil
}

// way is where the last thread to leave puts what it needs on its way out.
type way struct {
	suits  int
	stack  []byte // its alternate stack (stack_t)
	sp     uint64 // of the return address
	uc, fp uint64 // the frame
	xs     []byte
}

// wayOut finds the place of a thread's frame.
func (g *Guest) wayOut(t *Thread) way {
	w := way{stack: append([]byte(nil), g.execs[t].altStack()...), xs: signalXstate(t.Xstate)}
	w.uc, w.fp = framePlace(&t.Regs, w.stack, len(w.xs))
	w.sp = w.uc - g.gad.chainSize()
	w.suits = g.suits(t, w.sp-8, w.fp+uint64(len(w.xs)))
	if onAltStack(&t.Regs, w.stack, w.fp) {
		w.suits = min(w.suits, suitsRoom) // nobody uses it now
	}
	return w
}

// exit chooses the thread that unmaps the region and where its frame lies; nil
// when nobody's stack has room for that.
func (g *Guest) exit(stopped []*Thread) (last *Thread, w way) {
	if g.aide != nil {
		return g.aide, w
	}
	least := suitsNot
	for _, t := range stopped {
		try := g.wayOut(t)
		score := try.suits
		// A thread in a timed call would begin it anew, should we die.
		if score < suitsNot && RestartBlock(&t.Regs) {
			score = suitsSome
		}
		if score < least || score == least && t == g.first && score != suitsNot {
			last, w, least = t, try, score
		}
	}
	return last, w
}

// reissued gives registers that begin a thread's interrupted call anew. Of a
// timed call that was interrupted before, the kernel tells only that it goes on;
// which it was stands in the text, mostly.
func (g *Guest) reissued(r sys.Regs) sys.Regs {
	if RestartBlock(&r) && restartedBefore(&r) {
		pc, _ := placeOf(&r)
		b := make([]byte, 7)
		if sys.ReadMem(g.PID, pc-7, b) == nil {
			if nr, ok := numberIn(b); ok {
				r = numbered(r, nr)
			}
		}
	}
	return r
}

// detachRegion unmaps the region in a thread, through the vdso. Should the
// controller die in the middle, the thread returns to an rt_sigreturn outside
// the region that takes it home.
func (g *Guest) detachRegion(t *Thread, w way) error {
	e := g.execs[t]
	b := make([]byte, int(w.fp-w.sp)+len(w.xs))
	g.gad.chain(b[:w.uc-w.sp])
	copy(b[w.uc-w.sp:], ucontext(g.reissued(t.Regs), t.Mask, w.fp, w.stack))
	copy(b[w.fp-w.sp:], w.xs)
	if err := step("detach.frame"); err != nil {
		return errors.Join(err, t.restore())
	}
	// What lies there may be another stack's or a heap's: it gets its bytes back.
	was := make([]byte, len(b))
	_ = sys.ReadMem(g.PID, w.sp, was) // or it is stack that is not there yet
	debt := lending(t, g.PID, w.sp, was, b)
	old, err := lend(g.PID, w.sp, b)
	if err != nil {
		debt.Done()
		return errors.Join(fmt.Errorf("thread %d: a frame at %#x: %w", t.TID, w.uc, err), t.restore())
	}
	// As long as the thread is on its way, it needs what lies there.
	home := func() error {
		err := t.restore()
		if err == nil {
			_ = sys.WriteMem(g.PID, w.sp, old)
			debt.Done()
		}
		return err
	}
	leaving := func(err error) error {
		return errors.Join(fmt.Errorf("thread %d: leaving: %w", t.TID, err), home())
	}
	for _, at := range g.Region.views() {
		r := detachRegs(t.Regs, &g.gad, at, w.sp)
		if err := step("detach.registers"); err != nil {
			return leaving(err)
		}
		if err := sys.SetRegs(t.TID, &r); err != nil {
			return leaving(err)
		}
		e.halted = false
		for range 2 {
			if err := step("detach.go"); err != nil {
				return leaving(err)
			}
			if err := sys.ContSyscall(t.TID); err != nil {
				return leaving(err)
			}
			faultpoint.At("detach.runs")
			if err := e.syscallStop(); err != nil {
				return err
			}
		}
		end, err := sys.GetRegs(t.TID)
		if err != nil {
			return leaving(err)
		}
		if r := callResult(&end); r != 0 {
			return leaving(fmt.Errorf("unmapping the executor's region at %#x: %w", at, unix.Errno(-r)))
		}
	}
	return home()
}
