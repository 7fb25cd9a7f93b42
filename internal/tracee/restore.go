package tracee

import (
	"fmt"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Hole gives a page-aligned address of a range of size bytes that no area of
// the list touches, or 0. The list need not be in order.
func Hole(areas []procfs.VMA, size uint64) uint64 {
	s := append([]procfs.VMA(nil), areas...)
	sort.Slice(s, func(i, j int) bool { return s[i].Start < s[j].Start })
	return hole(s, size)
}

// Remove marks the segment for removal: it goes with its last mapping.
func (r *Region) Remove() { r.shm.Remove() }

// Boot brings the region into a stopped process of our own making, through a
// `syscall` at insn, and starts the executor there.
func (r *Region) Boot(pid int, insn uint64, slot int) (*Executor, error) {
	regs, err := sys.GetRegs(pid)
	if err != nil {
		return nil, err
	}
	g := attachRegs(regs, &Gadgets{Syscall: insn}, uint64(r.ID()), r.addr, sys.ShmExec, stackOf(&regs))
	if err := sys.SetRegs(pid, &g); err != nil {
		return nil, err
	}
	if err := StepCall(pid); err != nil {
		return nil, err
	}
	if g, err = sys.GetRegs(pid); err != nil {
		return nil, err
	}
	if got := callResult(&g); uint64(got) != r.addr {
		return nil, fmt.Errorf("shmat at %#x: %w", r.addr, unix.Errno(-got))
	}
	return r.Occupy(pid, slot)
}

// StepCall lets a stopped tracee (OptTraceSysgood) run one system call, up to
// its exit. A stop at the exit of a call that was entered before does not count.
func StepCall(tid int) error {
	for entered := false; ; {
		if err := sys.ContSyscall(tid); err != nil {
			return err
		}
		st, err := sys.Wait(tid)
		if err != nil {
			return err
		}
		if st.Exited() || st.Signaled() {
			return fmt.Errorf("thread %d ended (status %#x)", tid, uint32(st))
		}
		if !sys.IsSyscallStop(st) {
			continue
		}
		kind, err := sys.SyscallStop(tid)
		if err != nil {
			return err
		}
		if kind == sys.SyscallExit && entered {
			return nil
		}
		entered = entered || kind == sys.SyscallEntry
	}
}

// Occupy starts the executor in a stopped thread that has the region mapped.
func (r *Region) Occupy(tid, slot int) (*Executor, error) {
	e, err := r.Begin(tid, slot)
	if err != nil {
		return nil, err
	}
	return e, e.Wait()
}

// Begin is Occupy without waiting until the executor is there: Wait must follow.
func (r *Region) Begin(tid, slot int) (*Executor, error) {
	if slot >= r.slots {
		return nil, fmt.Errorf("thread %d: no slot left", tid)
	}
	s := r.Slot(slot)
	if err := r.send(tid, s); err != nil {
		return nil, err
	}
	return &Executor{Slot: s, TID: tid}, nil
}

// Seat gives an executor for a task that has the region mapped. Its first Start
// calls await, after which the task must be stopped, and sends it there.
func (r *Region) Seat(tid, slot int, await func() error) (*Executor, error) {
	if slot >= r.slots {
		return nil, fmt.Errorf("thread %d: no slot left", tid)
	}
	e := &Executor{Slot: r.Slot(slot), TID: tid}
	e.launch = func() (func() error, error) {
		err := await()
		if err == nil {
			err = r.send(tid, e.Slot)
		}
		return nil, err
	}
	return e, nil
}

// send lets a stopped task run into the executor.
func (r *Region) send(tid int, s *Slot) error {
	regs, err := sys.GetRegs(tid)
	if err != nil {
		return err
	}
	regs = enterRegs(regs, r.entry(), s.addr)
	if err := sys.SetRegs(tid, &regs); err != nil {
		return err
	}
	return sys.Cont(tid, 0)
}

// Halt stops the threads of executors for good: they are in ptrace stops
// afterwards.
func Halt(all ...*Executor) error {
	for _, e := range all {
		if err := sys.Interrupt(e.TID); err != nil {
			return fmt.Errorf("thread %d: %w", e.TID, err)
		}
	}
	for _, e := range all {
		if err := e.stop(); err != nil {
			return err
		}
	}
	return nil
}

// Leave unmaps the region in a stopped thread, through a `syscall` of its own
// text at insn. The thread's registers are lost.
func (r *Region) Leave(tid int, insn uint64) error {
	regs, err := sys.GetRegs(tid)
	if err != nil {
		return err
	}
	g := detachRegs(regs, &Gadgets{Syscall: insn}, r.addr, r.span(), stackOf(&regs))
	if err := sys.SetRegs(tid, &g); err != nil {
		return err
	}
	if err := StepCall(tid); err != nil {
		return err
	}
	if g, err = sys.GetRegs(tid); err != nil {
		return err
	}
	if got := callResult(&g); got != 0 {
		return fmt.Errorf("munmap: %w", unix.Errno(-got))
	}
	return nil
}

// CallAt runs one system call in a stopped thread through a `syscall` at insn,
// interrupting it at once, and gives what rax holds then. It is how a thread
// gets a restart block.
func CallAt(tid int, insn uint64, nr uint64, args [6]uint64) (int64, error) {
	regs, err := sys.GetRegs(tid)
	if err != nil {
		return 0, err
	}
	regs = callRegs(regs, insn, nr, args)
	if err := sys.SetRegs(tid, &regs); err != nil {
		return 0, err
	}
	if err := sys.ContSyscall(tid); err != nil {
		return 0, err
	}
	// At the entry the interrupt is already pending: the call returns at once.
	if _, err := sys.Wait(tid); err != nil {
		return 0, err
	}
	if err := sys.Interrupt(tid); err != nil {
		return 0, err
	}
	if err := sys.ContSyscall(tid); err != nil {
		return 0, err
	}
	st, err := sys.Wait(tid)
	if err != nil {
		return 0, err
	}
	if st.Exited() || st.Signaled() {
		return 0, fmt.Errorf("thread %d ended (status %#x)", tid, uint32(st))
	}
	if regs, err = sys.GetRegs(tid); err != nil {
		return 0, err
	}
	return callResult(&regs), nil
}
