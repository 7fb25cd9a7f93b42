package tracee

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Executor is a thread that runs batches through its slot.
type Executor struct {
	*Slot
	TID int
	// thread is the target's thread, nil in processes of our own making.
	thread *Thread
	// launch sends the thread into the executor, which is not running yet. What it
	// gives waits until it is there.
	launch func() (arrive func() error, err error)
	arrive func() error
	// Yield, when set, is called before each wait.
	Yield  func()
	failed error // that it could not be started
	// halted: it stands in a stop that was reported and not answered.
	halted bool
	// stray: it did not answer, and may run for ever.
	stray bool
}

// Run hands the batch over and waits until it has run.
func (e *Executor) Run() error {
	e.Start()
	return e.Wait()
}

// Start hands the batch over; Wait must follow before anything else.
func (e *Executor) Start() {
	faultpoint.At("executor.start")
	if launch := e.launch; launch != nil {
		e.launch = nil
		e.arm()
		e.arrive, e.failed = launch()
		faultpoint.At("executor.started")
		return
	}
	e.start()
	faultpoint.At("executor.started")
}

const (
	// quick is how long a hand-over may keep the OS thread from the scheduler.
	quick = 200 * time.Microsecond
	// answerLimit is how long a batch in a target may take: none of its calls
	// blocks. A target whose processor is taken by others needs some of it.
	answerLimit = 10 * time.Second
)

// Wait waits until the executor has run what it was given and parked again.
func (e *Executor) Wait() error {
	e.yield()
	if e.failed != nil {
		return e.failed
	}
	if arrive := e.arrive; arrive != nil {
		e.arrive = nil
		e.failed = arrive()
		return e.failed
	}
	return e.wait()
}

func (e *Executor) yield() {
	if e.Yield != nil {
		e.Yield()
	}
}

// Arrive waits for a thread that is on its way into the executor.
func (e *Executor) Arrive() error {
	if e.arrive == nil {
		return e.failed
	}
	return e.Wait()
}

func (e *Executor) wait() error {
	if e.parked(quick, false) {
		return nil
	}
	began := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if e.parked(pause, true) {
			return nil
		}
		st, changed, err := sys.Poll(e.TID)
		if err != nil {
			return fmt.Errorf("thread %d: wait: %w", e.TID, err)
		}
		if !changed {
			if e.thread != nil && time.Since(began) > answerLimit {
				e.stray = true
				return fault.Errorf(fault.ErrTimeout, "thread %d did not answer within %v (phase %d)", e.TID, answerLimit, e.Phase())
			}
			continue
		}
		switch {
		case st.Exited() || st.Signaled():
			return e.ended(st)
		case sys.IsEventStop(st), st.StopSignal() == unix.SIGSTOP:
			if err := e.goOn(st); err != nil {
				return err
			}
		case e.Phase() == 0 && st.StopSignal() == unix.SIGSEGV:
			// The bootstrap's shmat failed: the thread ran into its return
			// address, where nothing is mapped.
			e.halted = true
			r, err := sys.GetRegs(e.TID)
			if err != nil {
				return err
			}
			return fmt.Errorf("shmat: %w", unix.Errno(-callResult(&r)))
		default:
			e.halted = true
			r, _ := sys.GetRegs(e.TID)
			return fmt.Errorf("thread %d: executor stopped by %v in phase %d, registers %+v (slot %#x)", e.TID, st.StopSignal(), e.Phase(), r, e.addr)
		}
	}
}

func (e *Executor) ended(st unix.WaitStatus) error {
	return fault.Errorf(fault.ErrNotFound, "thread %d ended (status %#x) while it was being examined", e.TID, uint32(st))
}

// goOn answers a stop that is not what was waited for. Of signals only SIGSTOP
// can come, since nothing blocks it; the process gets it when it is let go.
func (e *Executor) goOn(st unix.WaitStatus) error {
	if !sys.IsEventStop(st) && st.StopSignal() == unix.SIGSTOP {
		e.hold()
	}
	if err := sys.Cont(e.TID, 0); err != nil {
		return fmt.Errorf("thread %d: %w", e.TID, err)
	}
	return nil
}

func (e *Executor) hold() {
	if e.thread != nil {
		e.thread.hold()
	}
}

// Call runs one system call and gives its result and error.
func (e *Executor) Call(nr uintptr, args ...uint64) (int64, error) {
	n := e.Add(nr, args...)
	if err := e.Run(); err != nil {
		return 0, err
	}
	return e.Result(n), e.Err(n)
}

// stop waits for the stop that an interrupt asked for.
func (e *Executor) stop() error {
	if e.halted {
		return nil
	}
	e.yield()
	wait := sys.Wait
	if e.stray {
		wait = waitBriefly
	}
	for {
		st, err := wait(e.TID)
		if err != nil {
			return fmt.Errorf("thread %d: %w", e.TID, err)
		}
		switch {
		case sys.IsEventStop(st):
			e.halted = true
			return nil
		case st.Exited() || st.Signaled():
			return e.ended(st)
		}
		if err := e.goOn(st); err != nil {
			return err
		}
	}
}

// waitBriefly is sys.Wait for a thread that may never stop.
func waitBriefly(tid int) (unix.WaitStatus, error) {
	for range 100 {
		st, ok, err := sys.Poll(tid)
		if ok || err != nil {
			return st, err
		}
		time.Sleep(time.Millisecond)
	}
	return 0, fault.Errorf(fault.ErrTimeout, "it does not stop")
}

// syscallStop waits for an entry to or exit from a system call.
func (e *Executor) syscallStop() error {
	for {
		st, err := sys.Wait(e.TID)
		if err != nil {
			return fmt.Errorf("thread %d: %w", e.TID, err)
		}
		switch {
		case sys.IsSyscallStop(st):
			return nil
		case st.Exited() || st.Signaled():
			return e.ended(st)
		case !sys.IsEventStop(st) && st.StopSignal() == unix.SIGSTOP:
			e.hold()
		case !sys.IsEventStop(st):
			return fmt.Errorf("thread %d: stopped by %v on its way out", e.TID, st.StopSignal())
		}
		if err := sys.ContSyscall(e.TID); err != nil {
			return fmt.Errorf("thread %d: %w", e.TID, err)
		}
	}
}

// AltStack gives the thread's alternate signal stack, as sigaltstack(2) told
// the executor on its way in.
func (e *Executor) AltStack() (sp, size uint64, flags uint32) {
	b := e.altStack()
	return le.Uint64(b), le.Uint64(b[16:]), le.Uint32(b[8:])
}

// altStack gives the same as a stack_t.
func (s *Slot) altStack() []byte { return s.mem[altOff : altOff+24] }
