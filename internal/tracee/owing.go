package tracee

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// A tracee that ran is stopped through its tracer (PTRACE_INTERRUPT), and so has
// to be let go again: at the end, or by the tracer's executor should this process
// die. Both carry out the same list of calls, which lies in a slot of its own. It
// grows by the calls for one tracee after the other, and shrinks from its front
// while they are carried out, by calls of its own (futex(2), FUTEX_WAKE_OP: an
// addition to a word).
//
// None of these calls may be carried out twice: a tracee that was let go may be in
// its next stop already, of which its tracer has not heard. So those for one
// tracee, and by how much the list shrinks by them, go together (Slot.GoWith):
// wherever the controller dies, what is left is what is owed.

// Owing is what a tracer owes its tracees.
type Owing struct {
	e    *Executor
	s    *Slot
	from int // the first call for the tracee that is being added
	must map[int]string
}

const (
	// most is how many calls there can be for one tracee: a number of twelve bits
	// with a sign has to hold their size.
	most = 2047 / callSize

	futexWakeOp = 5
	futexAdd    = 1 // FUTEX_OP_ADD
)

// Owe begins such a list in a free slot of the guest. While it is in force the
// thread can have no other undo list.
func (g *Guest) Owe(e *Executor) (*Owing, error) {
	s, err := g.slot()
	if err != nil {
		return nil, err
	}
	e.put64(offUndo, s.addr+offCalls)
	return &Owing{e: e, s: s, must: map[int]string{}}, nil
}

// Room tells whether the calls for one more tracee fit.
func (o *Owing) Room() bool { return o.s.Room(most, 512) }

func (o *Owing) add(name string, nr uintptr, args ...uint64) {
	n := o.s.Add(nr, args...)
	if n > o.from {
		o.s.GoWith(n)
	}
	if name != "" {
		o.must[n] = name
	}
}

func (o *Owing) ptrace(name string, x Traced, req, addr, data uint64) {
	o.add(name, unix.SYS_PTRACE, req, uint64(x.TID), addr, data)
}

// shrink makes the list begin behind the calls for a tracee, and these in it.
func (o *Owing) shrink() {
	n := o.s.n + 3 - o.from
	if n > most {
		panic("tracee: too many calls for one tracee")
	}
	by := func(off int, v int) {
		op := uint64(futexAdd)<<28 | uint64(v&0xfff)<<12
		o.add("shrinking the list", unix.SYS_FUTEX, o.s.addr+uint64(dataEnd), futexWakeOp, 0, 0, o.e.addr+uint64(off), op)
	}
	begin := o.s.addr + uint64(offCalls+o.from*callSize)
	carry := (begin+uint64(n*callSize))>>32 - begin>>32 // of an addition to 32 bits
	by(offUndo, n*callSize)
	by(offUndo+4, int(carry))
	by(offUndoN, -n)
	o.from = o.s.n
}

// commit puts in force what was added.
func (o *Owing) commit() { atomic.StoreUint32(o.e.word(offUndoN), uint32(o.s.n)) }

// Stop is what is known of a tracee that was interrupted.
type Stop struct {
	Mask    uint64
	Request uint64 // with which it ran: PtraceSyscall or PtraceCont
	// Reissue are registers with which it issues the system call again that the
	// stop has ended, nil when it was in none or will go on by itself.
	Reissue []byte
	// Quiet: the SIGCHLD of the stops is to be taken away.
	Quiet bool
}

// Add notes how a tracee that stands in the stop that was asked for goes on.
func (o *Owing) Add(x Traced, st Stop) error {
	if !o.Room() {
		return errors.New("more tracees than can be let go again")
	}
	take := func() {
		if st.Quiet {
			set := o.s.Put(le.AppendUint64(nil, sigchld))
			zero, _ := o.s.Data(16)
			o.add("", unix.SYS_RT_SIGTIMEDWAIT, set, 0, zero, 8)
		}
	}
	// Its end, should somebody kill it, is left for its tracer to hear of.
	const stop = unix.WSTOPPED | unix.WALL
	o.add("", unix.SYS_WAITID, unix.P_PID, uint64(x.TID), 0, stop|unix.WNOHANG, 0)
	if st.Reissue != nil {
		o.ptrace("blocking its signals", x, sys.PtraceSetSigmask, 8, o.s.Put(le.AppendUint64(nil, ^uint64(0))))
		o.ptrace("its registers", x, sys.PtraceSetRegs, 0, o.s.Put(st.Reissue))
		o.ptrace("going back to its system call", x, sys.PtraceSyscall, 0, 0)
		o.add("", unix.SYS_WAITID, unix.P_PID, uint64(x.TID), 0, stop, 0)
		o.ptrace("its signal mask", x, sys.PtraceSetSigmask, 8, o.s.Put(le.AppendUint64(nil, st.Mask)))
	}
	take()
	o.ptrace("letting it go on", x, st.Request, 0, 0)
	o.shrink()
	o.commit()
	return nil
}

// Pay carries the list out. It is harmless to call twice.
func (o *Owing) Pay() error {
	if o == nil || o.s.n == 0 {
		return nil
	}
	var errs []error
	for i := 0; i < o.s.n; {
		o.e.Reset()
		first := i
		for i < o.s.n {
			all := 1
			for i+all < o.s.n && o.s.goesWith(i+all) {
				all++
			}
			if !o.e.Room(all, 0) {
				break
			}
			for end := i + all; i < end; i++ {
				n := o.e.Add(0)
				copy(o.e.mem[offCalls+n*callSize:][:callSize], o.s.mem[offCalls+i*callSize:])
			}
		}
		if err := o.e.Run(); err != nil {
			return err
		}
		for n := range i - first {
			if name := o.must[first+n]; name != "" && o.e.Err(n) != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", name, o.e.Describe(n), o.e.Err(n)))
			}
		}
	}
	o.s.Reset()
	return errors.Join(errs...)
}

// Pause stops the executor's thread, for what needs it stopped; Resume must
// follow.
func (e *Executor) Pause() error {
	if err := step("executor.pause"); err != nil {
		return err
	}
	return Halt(e)
}

// Resume lets it wait for batches again.
func (e *Executor) Resume() error {
	if err := sys.Cont(e.TID, 0); err != nil {
		return fmt.Errorf("thread %d: %w", e.TID, err)
	}
	e.halted = false
	return nil
}
