package rebuild

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	criu_core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/tracee"
	"github.com/fermata-cr/fermata/internal/waits"
)

// Results of an interrupted system call (include/linux/errno.h).
const (
	errRestartSys    = -512
	errRestartNoIntr = -513
	errRestartNoHand = -514
	errRestartBlock  = -516
)

func regsOf(c *criu_core.CoreEntry) sys.Regs {
	g := c.GetThreadInfo().GetGpregs()
	return sys.Regs{
		R15: g.GetR15(), R14: g.GetR14(), R13: g.GetR13(), R12: g.GetR12(), Rbp: g.GetBp(), Rbx: g.GetBx(),
		R11: g.GetR11(), R10: g.GetR10(), R9: g.GetR9(), R8: g.GetR8(), Rax: g.GetAx(), Rcx: g.GetCx(), Rdx: g.GetDx(),
		Rsi: g.GetSi(), Rdi: g.GetDi(), Orig_rax: g.GetOrigAx(), Rip: g.GetIp(), Cs: g.GetCs(), Eflags: g.GetFlags(),
		Rsp: g.GetSp(), Ss: g.GetSs(), Fs_base: g.GetFsBase(), Gs_base: g.GetGsBase(),
		Ds: g.GetDs(), Es: g.GetEs(), Fs: g.GetFs(), Gs: g.GetGs(),
	}
}

// leave takes the executor out of every thread of a process and the region out
// of its address space, and gives the threads their registers. insn is a
// `syscall` of its own text.
func (b *builder) leave(p *proc, insn uint64) error {
	all := make([]*tracee.Executor, len(p.threads))
	for i, t := range p.threads {
		all[i] = t.exec
	}
	if err := tracee.Halt(all...); err != nil {
		return err
	}
	for _, t := range p.live() {
		regs := regsOf(t.core)
		t.raw = regs
		args := [6]uint64{regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9}
		t.exec.Reset()
		at, buf := t.exec.Data(16)
		if err := sys.SetXstate(t.exec.TID, t.extra.GetXstate()); err != nil {
			return fmt.Errorf("thread %d: extended state: %w", t.tid, err)
		}
		if int64(regs.Orig_rax) >= 0 {
			switch int64(regs.Rax) {
			case errRestartSys, errRestartNoIntr, errRestartNoHand:
				regs.Rip -= 2
				regs.Rax = regs.Orig_rax
				regs.Orig_rax = ^uint64(0)
			case errRestartBlock:
				armed, err := b.arm(t, insn, args, at, buf)
				if err != nil {
					return fmt.Errorf("thread %d: interrupted call: %w", t.tid, err)
				}
				if !armed {
					t.raw = tracee.BeginAnew(t.raw, t.raw.Orig_rax)
					regs.Rip -= 2
					regs.Rax = regs.Orig_rax
					if nr := t.extra.GetRestart().GetNr(); nr != 0 {
						regs.Rax = uint64(nr)
					}
					regs.Orig_rax = ^uint64(0)
				}
			default:
				regs.Orig_rax = ^uint64(0)
			}
		}
		t.regs = regs
	}
	if b.lastOf(p) {
		if err := b.region.Leave(p.host(), insn); err != nil {
			return fmt.Errorf("pid %d: leaving: %w", p.pid, err)
		}
	}
	for _, t := range p.live() {
		if err := sys.SetRegs(t.exec.TID, &t.regs); err != nil {
			return fmt.Errorf("thread %d: registers: %w", t.tid, err)
		}
	}
	if t := p.threads[0]; t.exited() {
		return b.dismissLeader(p, t, insn)
	}
	return nil
}

// dismissLeader lets a leader go into its exit, and waits until it is there. It
// is not traced any more then: nobody could let a zombie go.
func (b *builder) dismissLeader(p *proc, t *thread, insn uint64) error {
	regs, err := sys.GetRegs(t.exec.TID)
	if err != nil {
		return fmt.Errorf("thread %d: registers: %w", t.tid, err)
	}
	regs.Rip, regs.Rax, regs.Rdi, regs.Orig_rax = insn, unix.SYS_EXIT, uint64(t.extra.GetExited()>>8&0xff), ^uint64(0)
	if err := sys.SetRegs(t.exec.TID, &regs); err != nil {
		return fmt.Errorf("thread %d: registers: %w", t.tid, err)
	}
	if err := sys.SetSigmask(t.exec.TID, ^uint64(0)); err != nil {
		return fmt.Errorf("thread %d: mask: %w", t.tid, err)
	}
	if err := sys.Detach(t.exec.TID, 0); err != nil {
		return fmt.Errorf("thread %d: detach: %w", t.tid, err)
	}
	for end := time.Now().Add(10 * time.Second); ; sys.Nap(50 * time.Microsecond) {
		st, err := procfs.ReadStat(p.host(), p.host())
		if err != nil {
			return fmt.Errorf("thread %d: %w", t.tid, err)
		}
		if st.State == 'Z' {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("thread %d: does not exit (state %c)", t.tid, st.State)
		}
	}
}

// unmask gives the threads of a process their signal masks; until then
// everything is blocked.
func (b *builder) unmask(p *proc) error {
	for _, t := range p.live() {
		if err := sys.SetSigmask(t.exec.TID, t.core.GetThreadCore().GetBlkSigset()); err != nil {
			return fmt.Errorf("thread %d: mask: %w", t.tid, err)
		}
	}
	return nil
}

// arm makes a thread's restart block: it begins the call with the time that
// remained, is interrupted at once, and will go on through restart_syscall as
// if it had never been away. The registers it finally gets say so.
func (b *builder) arm(t *thread, insn uint64, args [6]uint64, at uint64, buf []byte) (bool, error) {
	nr, a, ts, ok := restartFor(t.extra.GetRestart(), args, at)
	if !ok {
		return false, nil
	}
	copy(buf, ts)
	r, err := tracee.CallAt(t.exec.TID, insn, nr, a)
	if err != nil {
		return false, err
	}
	if r == errRestartBlock {
		t.wait = &waits.Wait{TID: t.exec.TID, Nr: nr, Args: args, Until: waits.Now() + t.extra.GetRestart().GetRemainingNs()}
		return true, nil
	}
	// Anything else than an interrupted call means that it would not block:
	// issued again by the program, it says so itself.
	return false, nil
}

// pausing gives registers with which a thread waits, at a `syscall` at insn, for
// its tracer.
func pausing(r sys.Regs, insn uint64) sys.Regs { return calling(r, insn, unix.SYS_PAUSE) }

// calling gives registers that issue a system call without arguments at insn.
func calling(r sys.Regs, insn, nr uint64) sys.Regs {
	r.Rip, r.Rax, r.Orig_rax = insn, nr, ^uint64(0)
	return r
}

// issuing gives registers that issue the system call again before which a thread
// was held.
func issuing(r sys.Regs) sys.Regs {
	r.Rip -= 2
	r.Rax, r.Orig_rax = r.Orig_rax, ^uint64(0)
	return r
}
