package tracee

import (
	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// The way home out of a region is code in the thread's slot (home). The way home
// of the thread that unmaps the region is a signal frame: struct ucontext of arch/x86/include/uapi/asm/ucontext.h and sigcontext.h, and the
// extended state in the form that the kernel writes it for signals.
const (
	ucFlags     = 7 // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
	ucSize      = 304
	ucStack     = 16
	ucRegs      = 40
	ucCS        = 184
	ucSS        = 190
	ucFPState   = 224
	ucMask      = 296
	xSWReserved = 464
	fpMagic1    = 0x46505853
	fpMagic2    = 0x46505845
)

// Errors with which the kernel marks an interrupted system call; they are seen
// in rax of a stopped task only (include/linux/errno.h).
const (
	errRestartSys     = -512
	errRestartNoIntr  = -513
	errRestartNoHand  = -514
	errRestartBlock   = -516
	syscallInstrSize  = 2
	nrRestartSyscall  = 219
	nrSigreturn       = 15
	redZone           = 128
	trapFlag          = 0x100
	eflagsForExecutor = 0x202
)

// home writes the way home into a slot: code that gives the thread its mask and
// every general register, and jumps to where it was. Nothing else of it has
// changed. Unlike rt_sigreturn it leaves the restart block alone, so that an
// interrupted sleep goes on with the time that was left.
//
// Until the mask is set, no signal comes. From then on the stack pointer is the
// thread's own, so a handler finds the stack as it would without us.
func home(mem []byte, saved sys.Regs, mask uint64) {
	r := saved
	if RestartBlock(&r) {
		// As the kernel does it (arch_do_signal_or_restart).
		r.Rax = nrRestartSyscall
		r.Rip -= syscallInstrSize
	} else {
		r = Restarted(r)
	}
	data := 0
	put := func(v uint64) (disp uint32) {
		le.PutUint64(mem[homeDataOff+data:], v)
		data += 8
		return uint32(homeDataOff + data - 8)
	}
	code := mem[homeOff:homeOff:homeDataOff]
	emit := func(b ...byte) { code = append(code, b...) }
	disp := func(d uint32) { code = le.AppendUint32(code, d) }
	load := func(reg byte, v uint64) { // mov disp(%rbx),%reg
		emit(0x48|reg>>3<<2, 0x8b, 0x83|reg&7<<3)
		disp(put(v))
	}
	emit(0x48, 0x8d, 0xa3) // lea flags(%rbx),%rsp; popf
	disp(put(r.Eflags &^ trapFlag))
	emit(0x9d)
	const rsp, rbx = 4, 3
	load(rsp, r.Rsp)
	emit(0xb8, 14, 0, 0, 0)      // rt_sigprocmask(SIG_SETMASK, &mask, NULL, 8),
	emit(0xbf, 2, 0, 0, 0)       // without touching a flag
	emit(0x48, 0x8d, 0xb3)       // lea mask(%rbx),%rsi
	disp(put(mask))              //
	emit(0xba, 0, 0, 0, 0)       // mov $0,%edx
	emit(0x41, 0xba, 8, 0, 0, 0) // mov $8,%r10d
	emit(0x0f, 0x05)             // syscall
	for reg, v := range []uint64{r.Rax, r.Rcx, r.Rdx, 0, 0, r.Rbp, r.Rsi, r.Rdi, r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15} {
		if reg != rsp && reg != rbx {
			load(byte(reg), v)
		}
	}
	load(rbx, r.Rbx)
	emit(0xff, 0x25) // jmp *target(%rip)
	target := put(r.Rip)
	disp(target - uint32(homeOff+len(code)+4))
}

// second writes into a slot the code that a thread begins with where only the
// first view of the region is mapped: it maps the second one, at data, and goes
// on to the executor at entry. Like home it needs nothing but what it can read.
func second(mem []byte, id, data, slot, entry uint64) {
	code := mem[secondOff:secondOff]
	emit := func(b ...byte) { code = append(code, b...) }
	load := func(op byte, v uint64) { // movabs $v,%reg
		emit(0x48, op)
		code = le.AppendUint64(code, v)
	}
	load(0xb8, unix.SYS_SHMAT) // rax
	load(0xbf, id)             // rdi
	load(0xbe, data)           // rsi
	load(0xba, 0)              // rdx
	emit(0x0f, 0x05)           // syscall
	load(0xbb, slot)           // rbx
	load(0xb9, entry)          // rcx
	emit(0xff, 0xe1)           // jmp *%rcx
}

// Restarted gives the registers with which an interrupted system call is issued
// again from user mode: what the kernel itself would do without a handler. For
// a call with a restart block this begins it anew.
func Restarted(r sys.Regs) sys.Regs {
	if int64(r.Orig_rax) < 0 {
		return r
	}
	switch int64(r.Rax) {
	case errRestartSys, errRestartNoIntr, errRestartNoHand, errRestartBlock:
		r.Rax = r.Orig_rax
		r.Rip -= syscallInstrSize
	}
	r.Orig_rax = ^uint64(0)
	return r
}

// RestartBlock tells whether the thread was interrupted in a call that goes on
// through its restart block (nanosleep, poll, timed futex waits).
func RestartBlock(r *sys.Regs) bool {
	return int64(r.Orig_rax) >= 0 && int64(r.Rax) == errRestartBlock
}

// restartedBefore tells whether an interrupted thread was in restart_syscall.
func restartedBefore(r *sys.Regs) bool { return r.Orig_rax == nrRestartSyscall }

// BeginAnew gives registers with which a thread that was interrupted in a timed
// call issues call nr again from its beginning, instead of going on through its
// restart block.
func BeginAnew(r sys.Regs, nr uint64) sys.Regs {
	r.Orig_rax = nr
	r.Rax = uint64(0xffffffffffffffff + errRestartNoHand + 1)
	return r
}

// numberIn reads `mov $nr,%eax; syscall`.
func numberIn(b []byte) (nr uint64, ok bool) {
	return uint64(le.Uint32(b[1:])), b[0] == 0xb8 && b[5] == 0x0f && b[6] == 0x05
}

// numbered gives an interrupted call its number.
func numbered(r sys.Regs, nr uint64) sys.Regs {
	r.Orig_rax = nr
	return r
}

// ucontext writes the way home for a thread whose extended state lies at fp.
// stack is its alternate stack (stack_t), nil when the executor fills that in.
func ucontext(saved sys.Regs, mask, fp uint64, stack []byte) []byte {
	r := Restarted(saved)
	b := make([]byte, ucSize)
	le.PutUint64(b, ucFlags)
	copy(b[ucStack:ucStack+24], stack)
	for i, v := range [...]uint64{
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
		r.Rdi, r.Rsi, r.Rbp, r.Rbx, r.Rdx, r.Rax, r.Rcx, r.Rsp, r.Rip, r.Eflags,
	} {
		le.PutUint64(b[ucRegs+8*i:], v)
	}
	le.PutUint16(b[ucCS:], uint16(r.Cs))
	le.PutUint16(b[ucSS:], uint16(r.Ss))
	le.PutUint64(b[ucFPState:], fp)
	le.PutUint64(b[ucMask:], mask)
	return b
}

// signalXstate turns the ptrace form of the extended state into that of a
// signal frame: the software-reserved bytes say how much there is, and a magic
// word ends it.
func signalXstate(x []byte) []byte {
	o := make([]byte, len(x)+4)
	copy(o, x)
	features := le.Uint64(o[xSWReserved:])
	clear(o[xSWReserved : xSWReserved+48])
	le.PutUint32(o[xSWReserved:], fpMagic1)
	le.PutUint32(o[xSWReserved+4:], uint32(len(x)+4))
	le.PutUint64(o[xSWReserved+8:], features)
	le.PutUint32(o[xSWReserved+16:], uint32(len(x)))
	le.PutUint32(o[len(x):], fpMagic2)
	return o
}

// returnSlot gives where the 8 bytes of the bootstrap's return address go.
func returnSlot(r *sys.Regs) uint64 { return (r.Rsp-redZone-8)&^15 - 8 }

// callResult gives what a system call returned at its exit stop.
func callResult(r *sys.Regs) int64 { return int64(r.Rax) }

// attachRegs gives the registers of the bootstrap: shmat, then the executor.
func attachRegs(r sys.Regs, g *Gadgets, id, addr, flags, lend uint64) sys.Regs {
	r.Rip = g.Syscall
	r.Rax = unix.SYS_SHMAT
	r.Rdi, r.Rsi, r.Rdx = id, addr, flags
	r.Rsp = lend
	if g.Leave {
		r.Rbp = lend - 8
	}
	r.Orig_rax = ^uint64(0)
	r.Eflags = eflagsForExecutor
	return r
}

// enterRegs gives the registers that start the executor on a slot.
func enterRegs(r sys.Regs, entry, slot uint64) sys.Regs {
	r.Rip = entry
	r.Rbx = slot
	r.Orig_rax = ^uint64(0)
	r.Eflags = eflagsForExecutor
	return r
}

// exitRegs gives registers that end a thread.
func exitRegs(r sys.Regs, g *Gadgets) sys.Regs {
	return callRegs(r, g.Syscall, unix.SYS_EXIT, [6]uint64{})
}

// detachAndExit gives registers that unmap a region and end the thread, without
// a stack.
func detachAndExit(r sys.Regs, g *Gadgets, addr, size uint64) sys.Regs {
	r = callRegs(r, g.Exit, unix.SYS_MUNMAP, [6]uint64{addr, size})
	regs := [...]*uint64{&r.Rax, &r.Rcx, &r.Rdx, &r.Rbx, &r.Rsp, &r.Rbp, &r.Rsi, &r.Rdi, &r.R8, &r.R9, &r.R10, &r.R11, &r.R12, &r.R13, &r.R14, &r.R15}
	if g.ExitReg != 0 {
		*regs[g.ExitReg] = unix.SYS_EXIT
	}
	r.Eflags = eflagsForExecutor
	return r
}

// detachRegs gives the registers of the way out: munmap, returning to what lies
// at sp. (Both views of a region go by one call; shmdt(2) would take two.)
func detachRegs(r sys.Regs, g *Gadgets, addr, size, sp uint64) sys.Regs {
	r.Rip = g.Syscall
	r.Rax = unix.SYS_MUNMAP
	r.Rdi, r.Rsi = addr, size
	r.Rsp = sp
	if g.Leave {
		r.Rbp = sp - 8
	}
	switch g.FifteenReg {
	case regRBX:
		r.Rbx = nrSigreturn
	case regRBP:
		r.Rbp = nrSigreturn
	case regR12:
		r.R12 = nrSigreturn
	case regR12 + 1:
		r.R13 = nrSigreturn
	case regR12 + 2:
		r.R14 = nrSigreturn
	case regR12 + 3:
		r.R15 = nrSigreturn
	}
	r.Orig_rax = ^uint64(0)
	r.Eflags = eflagsForExecutor
	return r
}

// framePlace gives where a signal frame of a thread goes on its own stack: the
// ucontext and, above it, the extended state.
func framePlace(r *sys.Regs, stack []byte, xstate int) (uc, fp uint64) {
	fp = (signalArea(r, stack, xstate) - uint64(xstate)) &^ 63
	return (fp - ucSize) &^ 15, fp
}

// signalArea gives where the kernel would put a signal frame: the top of an
// alternate stack that is set and not in use, else below the red zone.
func signalArea(r *sys.Regs, stack []byte, xstate int) uint64 {
	sp, flags, size := le.Uint64(stack), le.Uint32(stack[8:]), le.Uint64(stack[16:])
	const disabled = 2
	if flags&disabled == 0 && size > uint64(xstate)+1024 && (r.Rsp <= sp || r.Rsp > sp+size) {
		return sp + size
	}
	return r.Rsp - redZone
}

// onAltStack tells whether a place of framePlace lies on the alternate stack.
func onAltStack(r *sys.Regs, stack []byte, at uint64) bool {
	return signalArea(r, stack, 0) != r.Rsp-redZone && at-le.Uint64(stack) < le.Uint64(stack[16:])
}

// placeOf gives where a thread is, and its stack pointer.
func placeOf(r *sys.Regs) (pc, sp uint64) { return r.Rip, r.Rsp }

// savedPC tells whether the word at an offset of some stack is the instruction
// pointer of a signal frame, and not what another left there.
func savedPC(b []byte, at int, r *sys.Regs) bool {
	uc := at - ucRegs - 16*8
	return uc >= 0 && uc+ucSize <= len(b) && le.Uint64(b[uc:])&^ucFlags == 0 && le.Uint64(b[uc+8:]) == 0 &&
		le.Uint16(b[uc+ucCS:]) == uint16(r.Cs)
}

// savedPoint gives what such a frame returns to.
func savedPoint(b []byte, at int) point {
	reg := func(i int) uint64 { return le.Uint64(b[at-8*i:]) }
	p := point{pc: reg(0), sp: reg(1)}
	p.regs.Rax, p.regs.Rsi, p.regs.Rdi, p.regs.Orig_rax = reg(3), reg(7), reg(8), ^uint64(0)
	return p
}

// underway tells whether a thread is about to map the segment or to unmap its
// views, or has just done so.
func underway(r *sys.Regs, id int, addr, size uint64) bool {
	switch {
	case r.Rax == unix.SYS_SHMAT, r.Orig_rax == unix.SYS_SHMAT:
		return r.Rdi == uint64(id) && r.Rsi == addr
	case r.Rax == unix.SYS_MUNMAP, r.Orig_rax == unix.SYS_MUNMAP:
		return r.Rdi == addr && r.Rsi == 2*size
	}
	return false
}

// waitsOnFutex tells whether a thread was stopped in a wait on a futex.
func waitsOnFutex(r *sys.Regs) bool { return r.Orig_rax == unix.SYS_FUTEX }

// rseqAbort moves a thread that was stopped inside a restartable sequence to
// the sequence's abort handler, as the kernel does for every thread it
// preempts there: read reads the task's memory, area is its struct rseq
// (include/uapi/linux/rseq.h).
func rseqAbort(r sys.Regs, read func(uint64, []byte) error, area uint64) (sys.Regs, bool) {
	var p [8]byte
	if read(area+8, p[:]) != nil {
		return r, false
	}
	cs := le.Uint64(p[:])
	if cs == 0 {
		return r, false
	}
	var d [32]byte
	if read(cs, d[:]) != nil {
		return r, false
	}
	start, length, abort := le.Uint64(d[8:]), le.Uint64(d[16:]), le.Uint64(d[24:])
	if r.Rip-start >= length {
		return r, false
	}
	r.Rip = abort
	r.Orig_rax = ^uint64(0)
	return r, true
}

func stackOf(r *sys.Regs) uint64 { return r.Rsp }

// callRegs gives the registers that issue one system call at insn.
func callRegs(r sys.Regs, insn, nr uint64, a [6]uint64) sys.Regs {
	r.Rip, r.Rax, r.Orig_rax = insn, nr, ^uint64(0)
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = a[0], a[1], a[2], a[3], a[4], a[5]
	return r
}
