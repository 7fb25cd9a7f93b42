package tracee

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/sys"
)

// The last thread to leave unmaps the region. While it does, should we die, its
// way home is a signal frame on its stack and an rt_sigreturn, which forgets
// what a timed system call had left to wait. So where no thread has a good stack,
// or all sit in such a call, a thread of our own does it. It needs neither: its
// home is exit(2), and there is code in the program's libc that goes there from
// a system call without a stack.

// needsAide tells whether that is so.
func (g *Guest) needsAide() bool {
	if g.gad.Exit == 0 {
		return false
	}
	for t := range g.execs {
		if !RestartBlock(&t.Regs) && g.wayOut(t).suits <= suitsRoom {
			return false
		}
	}
	return len(g.execs) > 0
}

// spawn starts that thread, from an executor that is parked; it stands still
// before its first instruction. Where the process may have no more threads it
// goes without.
func (g *Guest) spawn() error {
	var from *Executor
	for _, e := range g.execs {
		if !e.halted && !e.stray {
			from = e
		}
	}
	if from == nil || g.next >= g.Region.Slots() {
		return nil
	}
	s := g.Region.Slot(g.next)
	g.next++
	t := &Thread{Regs: exitRegs(from.thread.Regs, &g.gad), Mask: ^uint64(0), process: from.thread.process}
	home(s.mem, t.Regs, t.Mask)
	const flags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM | unix.CLONE_PTRACE
	from.Reset()
	if err := step("aide.spawn"); err != nil {
		return err
	}
	n := from.spawn(flags, s.addr+SlotSize, s.addr)
	if err := from.Run(); err != nil {
		return err
	}
	faultpoint.At("aide.spawned")
	if from.Err(n) != nil {
		return nil
	}
	t.TID = int(from.Result(n))
	e := &Executor{Slot: s, TID: t.TID, thread: t}
	if err := e.stop(); err != nil {
		return err
	}
	g.execs[t] = e
	g.aide = t
	return nil
}

// detachAndExit lets the aide unmap the region and end. Whatever becomes of us,
// it does both.
func (g *Guest) detachAndExit() error {
	t := g.aide
	e := g.execs[t]
	at := g.Region.addr
	r := detachAndExit(t.Regs, &g.gad, at, g.Region.span())
	if err := step("aide.registers"); err != nil {
		return fmt.Errorf("thread %d: %w", t.TID, err)
	}
	if err := sys.SetRegs(t.TID, &r); err != nil {
		return fmt.Errorf("thread %d: %w", t.TID, err)
	}
	for range 2 {
		if err := step("aide.go"); err != nil {
			return fmt.Errorf("thread %d: %w", t.TID, err)
		}
		if err := sys.ContSyscall(t.TID); err != nil {
			return fmt.Errorf("thread %d: %w", t.TID, err)
		}
		faultpoint.At("aide.runs")
		if err := e.syscallStop(); err != nil {
			return err
		}
	}
	end, err := sys.GetRegs(t.TID)
	if err != nil {
		return fmt.Errorf("thread %d: %w", t.TID, err)
	}
	if r := callResult(&end); r != 0 {
		err = fmt.Errorf("pid %d: unmapping the executor's region at %#x: %w", g.PID, at, unix.Errno(-r))
		return errors.Join(err, g.dismiss())
	}
	return g.dismiss()
}

// dismiss lets the aide end, and waits for it.
func (g *Guest) dismiss() error {
	if err := step("aide.dismiss"); err != nil {
		return err
	}
	tid := g.aide.TID
	for {
		if err := sys.Cont(tid, 0); err != nil {
			return fmt.Errorf("thread %d: %w", tid, err)
		}
		st, err := sys.Wait(tid)
		if err != nil {
			return fmt.Errorf("thread %d: wait: %w", tid, err)
		}
		if st.Exited() || st.Signaled() {
			return nil
		}
	}
}
