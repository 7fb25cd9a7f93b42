package tracee

import (
	"bytes"
	"os"
	"sync"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Gadgets are the places of a task's own text that a session leans on: no text
// is ever written, and no code of ours unmaps itself.
type Gadgets struct {
	// Syscall is a `syscall` that reaches `ret` clobbering nothing that
	// matters; Leave tells that a `leave` stands between.
	Syscall uint64
	Leave   bool
	// Sigreturn is a `mov $15,%eax; syscall`, 0 when the program has none.
	Sigreturn uint64
	// Fifteen, looked for where there is no Sigreturn, brings the number 15 into
	// eax and returns: from register FifteenReg, or from the stack when that is
	// 0. It takes FifteenPops bytes of stack besides its return address.
	Fifteen     uint64
	FifteenReg  int
	FifteenPops int
	// Exit is a `syscall` after which, without touching the stack, the thread
	// ends by exit(2), whose number is in register ExitReg, or comes with the
	// code when that is 0. Exit is 0 when none was found.
	Exit    uint64
	ExitReg int
}

type fileKey struct {
	dev, ino uint64
	off      uint64
}

// textAt caches what a file's text has: offsets into the mapping, or -1.
// Thousands of processes map the same libc.
var textAt sync.Map

type textOffsets struct{ sigreturn, exit, exitReg int }

var sigreturnForms = [][]byte{
	{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05}, // mov $15,%rax (glibc, Go)
	{0xb8, 15, 0, 0, 0, 0x0f, 0x05},             // mov $15,%eax (musl)
}

// FindGadgets looks them up in a process's memory map.
func FindGadgets(pid int, maps []procfs.VMA) (Gadgets, bool) {
	var g Gadgets
	for i := range maps {
		if maps[i].Path == "[vdso]" {
			g.Syscall, g.Leave = vdsoSyscall(pid, &maps[i])
		}
	}
	for i := range maps {
		v := &maps[i]
		if !v.Exec || !v.Read || v.Path == "[vdso]" || v.Path == "[vsyscall]" {
			continue
		}
		if g.Syscall != 0 && g.Sigreturn != 0 {
			break
		}
		if g.Sigreturn == 0 {
			g.findSigreturn(pid, v)
		}
		if g.Syscall == 0 {
			if b, err := readText(pid, v); err == nil {
				if o, leave, ok := scanSyscallRet(b); ok {
					g.Syscall, g.Leave = v.Start+uint64(o), leave
				}
			}
		}
	}
	if g.Sigreturn == 0 && g.Syscall != 0 {
		g.findFifteen(pid, maps)
	}
	return g, g.Syscall != 0 && (g.Sigreturn != 0 || g.Fifteen != 0)
}

// findFifteen looks for another way to rt_sigreturn, in programs that have none
// because they handle no signals: its number from elsewhere, the vdso's
// `syscall` for the rest. Any compiled function that returns a saved value does.
func (g *Gadgets) findFifteen(pid int, maps []procfs.VMA) {
	for i := range maps {
		v := &maps[i]
		if !v.Exec || !v.Read || v.Path == "[vsyscall]" {
			continue
		}
		b, err := readText(pid, v)
		if err != nil {
			continue
		}
		if off, reg, pops, ok := scanFifteen(b, g.Leave); ok {
			g.Fifteen, g.FifteenReg, g.FifteenPops = v.Start+uint64(off), reg, pops
			return
		}
	}
}

// chainSize gives the bytes of the chain: what stands on the stack between the
// return address that munmap's `ret` takes and the signal frame.
func (g *Gadgets) chainSize() uint64 {
	if g.Sigreturn != 0 {
		return 8
	}
	return uint64(8 + g.FifteenPops + 8)
}

// onWay tells whether an instruction is one of those that a thread passes on
// its way out of a region.
func (g *Gadgets) onWay(pc uint64) bool {
	return pc-g.Syscall < gadgetMax || g.Sigreturn != 0 && pc-g.Sigreturn < gadgetMax || g.Fifteen != 0 && pc-g.Fifteen < gadgetMax
}

// chain writes it.
func (g *Gadgets) chain(b []byte) {
	if g.Sigreturn != 0 {
		le.PutUint64(b, g.Sigreturn)
		return
	}
	le.PutUint64(b, g.Fifteen)
	for at := 8; at < len(b)-8; at += 8 {
		le.PutUint64(b[at:], nrSigreturn)
	}
	le.PutUint64(b[len(b)-8:], g.Syscall)
}

var vdsoCache struct {
	sync.Mutex
	ok    bool
	size  uint64
	off   int
	leave bool
	code  []byte
}

// vdsoSyscall finds the vdso's system call; the kernel maps one vdso into all
// tasks of an architecture, so it is searched once and then only compared.
func vdsoSyscall(pid int, v *procfs.VMA) (uint64, bool) {
	c := &vdsoCache
	c.Lock()
	defer c.Unlock()
	if c.ok && c.size == v.End-v.Start {
		b := make([]byte, len(c.code))
		if sys.ReadMem(pid, v.Start+uint64(c.off), b) == nil && bytes.Equal(b, c.code) {
			return v.Start + uint64(c.off), c.leave
		}
	}
	b, err := readText(pid, v)
	if err != nil {
		return 0, false
	}
	o, leave, ok := scanSyscallRet(b)
	if !ok {
		return 0, false
	}
	c.ok, c.size, c.off, c.leave = true, v.End-v.Start, o, leave
	c.code = bytes.Clone(b[o:min(o+24, len(b))])
	return v.Start + uint64(o), leave
}

func readText(pid int, v *procfs.VMA) ([]byte, error) {
	b := make([]byte, v.End-v.Start)
	return b, sys.ReadMem(pid, v.Start, b)
}

// findSigreturn looks for a sigreturn in one area and, where there is one, for a
// way to exit: a libc has both.
func (g *Gadgets) findSigreturn(pid int, v *procfs.VMA) {
	key := fileKey{uint64(v.DevMajor)<<32 | uint64(v.DevMinor), v.Ino, v.Offset}
	take := func(o textOffsets) {
		g.Sigreturn = v.Start + uint64(o.sigreturn)
		if o.exit >= 0 {
			g.Exit, g.ExitReg = v.Start+uint64(o.exit), o.exitReg
		}
	}
	if v.Ino != 0 {
		if x, ok := textAt.Load(key); ok {
			o := x.(textOffsets)
			if o.sigreturn < 0 {
				return
			}
			// The file may be another by now, or the text patched: look.
			if peek(pid, v, o.sigreturn, matchSigreturn) {
				if o.exit >= 0 && !peek(pid, v, o.exit, func(b []byte) bool { return bytes.HasPrefix(b, syscallInsn) }) {
					o.exit = -1
				}
				take(o)
				return
			}
		}
	}
	// Piece by piece: a libc has both near its beginning, and fresh memory for
	// more of it would cost more than the search. Each piece begins with the end
	// of the one before, for what lies across.
	const piece, overlap = 32 << 10, 1 << 10
	o := textOffsets{-1, -1, 0}
	buf := make([]byte, overlap+piece)
	kept := 0
	for at := v.Start; at < v.End && (o.sigreturn < 0 || o.exit < 0); {
		n := int(min(v.End-at, piece))
		if sys.ReadMem(pid, at, buf[kept:kept+n]) != nil {
			return
		}
		b := buf[:kept+n]
		base := int(at-v.Start) - kept
		for _, f := range sigreturnForms {
			if i := bytes.Index(b, f); i >= 0 && o.sigreturn < 0 {
				o.sigreturn = base + i
			}
		}
		if o.exit < 0 {
			if o.exit, o.exitReg = scanExit(b); o.exit >= 0 {
				o.exit += base
			}
		}
		kept = copy(buf, b[max(0, len(b)-overlap):])
		at += uint64(n)
	}
	if o.sigreturn < 0 {
		o.exit = -1
	}
	if v.Ino != 0 {
		textAt.Store(key, o)
	}
	if o.sigreturn >= 0 {
		take(o)
	}
}

func peek(pid int, v *procfs.VMA, off int, is func([]byte) bool) bool {
	b := make([]byte, 9)
	return sys.ReadMem(pid, v.Start+uint64(off), b) == nil && is(b)
}

var syscallInsn = []byte{0x0f, 0x05}

// scanExit finds a `syscall` that is followed, without use of the stack, by an
// exit(2): the end of a thread's first function (`1: xor %edi,%edi;
// mov %edx,%eax; syscall; jmp 1b` in glibc, with the number in edx all along;
// `mov $60,%eax; syscall` behind a munmap in musl; the end of clone in Go).
func scanExit(b []byte) (off, reg int) {
	for i := 0; ; i += 2 {
		n := bytes.Index(b[i:], syscallInsn)
		if n < 0 {
			return -1, 0
		}
		i += n
		if reg, ok := leadsToExit(b, i+2); ok {
			return i, reg
		}
	}
}

// leadsToExit follows the code at i up to the next `syscall`.
func leadsToExit(b []byte, i int) (reg int, ok bool) {
	const exit = 60
	reg = -1
	zeroed := 0 // a bit for each register that was overwritten
	for range 8 {
		if i < 0 || i+8 > len(b) {
			return 0, false
		}
		rex, at := byte(0), i
		if b[at]&0xf0 == 0x40 {
			rex = b[at]
			at++
		}
		mod, r, m := b[at+1]&0xc0, int(b[at+1]>>3&7|rex&4<<1), int(b[at+1]&7|rex&1<<3)
		switch {
		case b[i] == 0x0f && b[i+1] == 0x05:
			return reg, reg >= 0
		case b[i] == 0xeb: // jmp
			i += 2 + int(int8(b[i+1]))
		case b[i] == 0x90:
			i++
		case b[i] == 0x66 && b[i+1] == 0x90:
			i += 2
		case b[at] == 0x31 && mod == 0xc0 && r == m && m != 0: // xor reg,reg
			zeroed |= 1 << m
			i = at + 2
		case b[i] == 0xb8 && le.Uint32(b[i+1:]) == exit: // mov $60,%eax
			reg = 0
			i += 5
		case b[i] == 0xbf: // mov $n,%edi
			zeroed |= 1 << 7
			i += 5
		case mod == 0xc0 && (b[at] == 0x89 && m == 0 || b[at] == 0x8b && r == 0): // mov reg,%eax
			from := r | m
			// What the system call itself overwrites or takes cannot hold it.
			if from == 0 || from == 1 || from == 4 || from == 6 || from == 7 || from == 11 || zeroed>>from&1 != 0 {
				return 0, false
			}
			reg = from
			i = at + 2
		default:
			return 0, false
		}
	}
	return 0, false
}

func matchSigreturn(b []byte) bool {
	for _, f := range sigreturnForms {
		if bytes.HasPrefix(b, f) {
			return true
		}
	}
	return false
}

// gadgetMax is how long a system call and its `ret` may be, in bytes.
const gadgetMax = 40

// scanSyscallRet finds `syscall` followed by nothing but `xor reg,reg` of
// registers other than rax (compilers clear call-used registers), at most one
// `leave`, and `ret`.
func scanSyscallRet(b []byte) (off int, leave, ok bool) {
	for i := 0; i+3 < len(b); i++ {
		if b[i] != 0x0f || b[i+1] != 0x05 {
			continue
		}
		leave := false
		for j := i + 2; j < len(b) && j < i+gadgetMax; {
			if b[j] == 0xc3 {
				return i, leave, true
			}
			if b[j] == 0xc9 && !leave {
				leave = true
				j++
				continue
			}
			k := j
			if b[k] == 0x45 && k+2 < len(b) {
				k++
			}
			if k+1 < len(b) && b[k] == 0x31 && b[k+1]&0xc0 == 0xc0 &&
				b[k+1]>>3&7 == b[k+1]&7 && (k != j || b[k+1] != 0xc0) {
				j = k + 2
				continue
			}
			break
		}
	}
	return 0, false, false
}

// x86 numbers of the registers that a chain may carry 15 in: those that a call
// keeps.
const (
	regRBX = 3
	regRBP = 5
	regR12 = 12
)

// scanFifteen finds `pop %rax; ret`, or `mov %reg,%eax` of a register that calls
// keep, followed by nothing but pops and `ret`. reg is 0 for the first form.
func scanFifteen(b []byte, leave bool) (off, reg, pops int, ok bool) {
	for i := 0; i+2 < len(b); i++ {
		if b[i] == 0x58 && b[i+1] == 0xc3 {
			return i, 0, 8, true
		}
		// mov %reg,%eax (89 /r) or mov %reg,%eax (8b /r), with or without REX.W.
		j, rex := i, byte(0)
		if b[j]&0xf0 == 0x40 {
			rex = b[j]
			j++
		}
		if j+2 >= len(b) || b[j+1]&0xc0 != 0xc0 {
			continue
		}
		var src, dst int
		switch b[j] {
		case 0x89:
			src, dst = int(b[j+1]>>3&7|rex&4<<1), int(b[j+1]&7|rex&1<<3)
		case 0x8b:
			src, dst = int(b[j+1]&7|rex&1<<3), int(b[j+1]>>3&7|rex&4<<1)
		default:
			continue
		}
		if dst != 0 || src != regRBX && src < regR12 && (src != regRBP || leave) {
			continue
		}
		if n, ok := scanPops(b[j+2:]); ok {
			return i, src, n, true
		}
	}
	return 0, 0, 0, false
}

// scanPops reads pops of registers other than rax and rsp, and additions to
// rsp, up to a `ret`: how many bytes of stack they take.
func scanPops(b []byte) (n int, ok bool) {
	for i := 0; i < len(b) && i < 32; {
		switch {
		case b[i] == 0xc3:
			return n, true
		case b[i] >= 0x59 && b[i] <= 0x5f && b[i] != 0x5c:
			n, i = n+8, i+1
		case b[i] == 0x41 && i+1 < len(b) && b[i+1] >= 0x58 && b[i+1] <= 0x5f:
			n, i = n+8, i+2
		case i+3 < len(b) && b[i] == 0x48 && b[i+1] == 0x83 && b[i+2] == 0xc4 && b[i+3] < 0x80 && b[i+3]%8 == 0:
			n, i = n+int(b[i+3]), i+4
		default:
			return 0, false
		}
	}
	return 0, false
}

// OwnVdso gives this process's vdso image, for comparing with a task's. It must
// not be changed.
var OwnVdso = sync.OnceValues(func() ([]byte, error) {
	maps, err := procfs.ReadMaps(os.Getpid())
	if err != nil {
		return nil, err
	}
	for i := range maps {
		if maps[i].Path == "[vdso]" {
			return readText(os.Getpid(), &maps[i])
		}
	}
	return nil, os.ErrNotExist
})
