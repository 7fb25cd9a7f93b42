package tracee

import (
	"errors"
	"fmt"
	"slices"

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

// Executor gives the executor of a stopped thread of the guest, parked. It is
// started there when it is not running yet.
func (g *Guest) Executor(t *Thread) (*Executor, error) {
	e, err := g.Seat(t)
	if err != nil {
		return nil, err
	}
	if e.launch != nil {
		e.Start()
	}
	return e, e.Wait()
}

// Release takes the executor out of every thread and the region out of the
// process; each thread is stopped again with the registers and mask it had.
func (g *Guest) Release() error { return ReleaseAll([]*Guest{g}) }

// releaseAtOnce is how many guests leave side by side: what the journal has to
// note of each takes some KiB.
const releaseAtOnce = 32

// ReleaseAll is Release of many guests, several at once: while one is on its way
// the next is sent, and nobody waits for each.
func ReleaseAll(guests []*Guest) error {
	var errs []error
	for some := range slices.Chunk(guests, releaseAtOnce) {
		var all []*leaving
		for _, g := range some {
			if g != nil && g.Region != nil {
				all = append(all, &leaving{g: g})
			}
		}
		for _, step := range []func(*leaving){(*leaving).interrupt, (*leaving).sendHome, (*leaving).entry, (*leaving).exit} {
			for _, l := range all {
				step(l)
			}
		}
		for _, l := range all {
			if l.g.Region != nil {
				l.g.close(l.clean)
			}
			errs = append(errs, l.errs...)
		}
	}
	return errors.Join(errs...)
}

// leaving is a guest that is being released.
type leaving struct {
	g     *Guest
	out   []*Executor // that were interrupted
	clean bool        // no task has the region any more
	errs  []error
	last  *Thread      // unmaps the region; nil when none is on its way
	home  func() error // gives it its registers and what lay at its frame
}

func (l *leaving) fail(err error) {
	if err != nil {
		l.errs = append(l.errs, err)
	}
}

// interrupt asks every executor to stop.
func (l *leaving) interrupt() {
	g := l.g
	for _, e := range g.execs {
		// One that is on its way stands where it must not be interrupted. Where it
		// does not arrive the region has been given up.
		l.fail(e.Arrive())
	}
	if g.Region == nil {
		return
	}
	if g.needsAide() {
		l.fail(g.spawn())
	}
	for t, e := range g.execs {
		err := step("release.interrupt")
		if err == nil && !e.halted {
			err = sys.Interrupt(t.TID)
		}
		if err != nil {
			l.fail(fmt.Errorf("thread %d: %w", t.TID, err))
			continue
		}
		l.out = append(l.out, e)
	}
}

// sendHome gives the threads that have stopped back what they had, and sends one
// of them on the way that unmaps the region.
func (l *leaving) sendHome() {
	g := l.g
	if g.Region == nil {
		return
	}
	var stopped []*Thread
	for _, e := range l.out {
		faultpoint.At("release.stop")
		if err := e.stop(); err != nil {
			l.fail(err)
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
			l.fail(err)
			inside = true
		}
	}
	switch {
	case last == nil:
		// Where no thread has room for a frame now, the region stays, owed, until
		// the guardian finds one that has.
		l.clean = len(g.execs) == 0
	case inside && last == g.aide:
		l.fail(g.aide.restore())
		l.fail(g.dismiss())
	case inside:
		l.fail(last.restore())
	case last == g.aide:
		err := g.detachAndExit()
		l.clean = err == nil
		l.fail(err)
	default:
		l.detach(last, w)
	}
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

// detach sends a thread to unmap the region, through the vdso. Should the
// controller die in the middle, it returns to an rt_sigreturn outside the region
// that takes it home.
func (l *leaving) detach(t *Thread, w way) {
	g := l.g
	b := make([]byte, int(w.fp-w.sp)+len(w.xs))
	g.gad.chain(b[:w.uc-w.sp])
	copy(b[w.uc-w.sp:], ucontext(g.reissued(t.Regs), t.Mask, w.fp, w.stack))
	copy(b[w.fp-w.sp:], w.xs)
	if err := step("detach.frame"); err != nil {
		l.fail(err)
		l.fail(t.restore())
		return
	}
	// What lies there may be another stack's or a heap's: it gets its bytes back.
	was := make([]byte, len(b))
	_ = sys.ReadMem(g.PID, w.sp, was) // or it is stack that is not there yet
	debt := lending(t, g.PID, w.sp, was, b)
	old, err := lend(g.PID, w.sp, b)
	if err != nil {
		debt.Done()
		l.fail(fmt.Errorf("thread %d: a frame at %#x: %w", t.TID, w.uc, err))
		l.fail(t.restore())
		return
	}
	// As long as the thread is on its way, it needs what lies there.
	l.last, l.home = t, func() error {
		err := t.restore()
		if err == nil {
			_ = sys.WriteMem(g.PID, w.sp, old)
			debt.Done()
		}
		return err
	}
	r := detachRegs(t.Regs, &g.gad, g.Region.addr, g.Region.span(), w.sp)
	err = step("detach.registers")
	if err == nil {
		err = sys.SetRegs(t.TID, &r)
	}
	if err != nil {
		l.back(err)
		return
	}
	g.execs[t].halted = false
	l.goOn()
}

// back brings the thread home that was to unmap the region and could not.
func (l *leaving) back(err error) {
	l.fail(fmt.Errorf("thread %d: leaving: %w", l.last.TID, err))
	l.fail(l.home())
	l.last = nil
}

// goOn lets the thread run to the next entry or exit of a system call.
func (l *leaving) goOn() {
	err := step("detach.go")
	if err == nil {
		err = sys.ContSyscall(l.last.TID)
	}
	if err != nil {
		l.back(err)
		return
	}
	faultpoint.At("detach.runs")
}

// stopped waits for the thread there.
func (l *leaving) stopped() bool {
	if l.last == nil {
		return false
	}
	if err := l.g.execs[l.last].syscallStop(); err != nil {
		l.fail(err)
		l.last = nil
		return false
	}
	return true
}

// entry waits until the thread is about to unmap the region, and lets it.
func (l *leaving) entry() {
	if l.stopped() {
		l.goOn()
	}
}

// exit waits until it has.
func (l *leaving) exit() {
	if !l.stopped() {
		return
	}
	end, err := sys.GetRegs(l.last.TID)
	if err == nil {
		if r := callResult(&end); r != 0 {
			err = fmt.Errorf("unmapping the executor's region at %#x: %w", l.g.Region.addr, unix.Errno(-r))
		}
	}
	if err != nil {
		l.back(err)
		return
	}
	err = l.home()
	l.clean = err == nil
	l.fail(err)
}
