// Package seccomp foretells what a task's seccomp filters answer to a system
// call. It runs nothing: a filter's instructions (classic BPF, seccomp(2)) are
// followed along every path that the call's unknown arguments leave open.
package seccomp

import "encoding/binary"

// Answer is what a filter does about a call: SECCOMP_RET_* without its data
// (include/uapi/linux/seccomp.h).
type Answer uint32

// The answers, the strongest first: of several filters' the first in this order
// counts.
const (
	KillProcess Answer = 0x80000000 // Linux 4.14
	KillThread  Answer = 0
	Trap        Answer = 0x00030000
	Errno       Answer = 0x00050000
	Notify      Answer = 0x7fc00000 // Linux 5.0
	Trace       Answer = 0x7ff00000
	Log         Answer = 0x7ffc0000 // Linux 4.14
	Allow       Answer = 0x7fff0000
)

const actionMask = 0xffff0000

// Runs tells whether a call that is answered so is carried out.
func (a Answer) Runs() bool { return a == Allow || a == Log }

// Harmless tells whether a task survives a call that is answered so unchanged:
// it is carried out, or fails with an error.
func (a Answer) Harmless() bool { return a.Runs() || a == Errno }

// instruction is a struct sock_filter (include/uapi/linux/filter.h).
type instruction struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// Filter is one filter's program.
type Filter []instruction

// Parse reads the instructions of a filter, 8 bytes each in native order. What
// is left over is ignored: the kernel gives none.
func Parse(b []byte) Filter {
	f := make(Filter, len(b)/8)
	for i := range f {
		p := b[8*i:]
		f[i] = instruction{binary.NativeEndian.Uint16(p), p[2], p[3], binary.NativeEndian.Uint32(p[4:])}
	}
	return f
}

// Asks tells whether a filter may hand calls over to a supervisor
// (SECCOMP_RET_USER_NOTIF).
func (f Filter) Asks() bool {
	for _, in := range f {
		if in.code == retK && Answer(in.k&actionMask) == Notify {
			return true
		}
	}
	return false
}

// Opcodes of classic BPF that seccomp admits (kernel/seccomp.c,
// seccomp_check_filter).
const (
	ldW    = 0x20 // BPF_LD|BPF_W|BPF_ABS: of struct seccomp_data
	ldLen  = 0x80
	ldxLen = 0x81
	ldImm  = 0x00
	ldxImm = 0x01
	ldMem  = 0x60
	ldxMem = 0x61
	st     = 0x02
	stx    = 0x03
	tax    = 0x07
	txa    = 0x87
	retK   = 0x06
	retA   = 0x16
	ja     = 0x05

	classALU = 0x04
	classJmp = 0x05
	srcX     = 0x08

	dataLen = 64 // sizeof(struct seccomp_data)
	dataNr  = 0
	dataArc = 4
)

// value is a register's content as far as it is known.
type value struct {
	v     uint32
	known bool
}

type state struct {
	pc   int
	a, x value
	mem  [16]value
}

// budget is how many instructions are followed; a filter beyond that is taken
// to answer with its worst.
const budget = 1 << 18

// Answers gives everything that a filter may answer to call nr of architecture
// arch (AUDIT_ARCH_*), whatever its arguments and wherever it is made.
func (f Filter) Answers(arch, nr uint32) map[Answer]bool {
	out := map[Answer]bool{}
	todo := []state{{}}
	left := budget
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for {
			if s.pc < 0 || s.pc >= len(f) || left == 0 {
				out[KillProcess] = true
				break
			}
			left--
			in := f[s.pc]
			s.pc++
			if in.code == retK || in.code == retA {
				switch {
				case in.code == retK:
					out[Answer(in.k&actionMask)] = true
				case s.a.known:
					out[Answer(s.a.v&actionMask)] = true
				default:
					out[KillProcess] = true
				}
				break
			}
			if in.code&7 == classJmp && in.code != ja {
				taken, sure := s.jump(in)
				if !sure {
					other := s
					other.pc += int(in.jf)
					todo = append(todo, other)
					taken = true
				}
				if taken {
					s.pc += int(in.jt)
				} else {
					s.pc += int(in.jf)
				}
				continue
			}
			s.step(in, arch, nr)
		}
	}
	return out
}

// jump tells whether a conditional jump is taken, if that is known.
func (s *state) jump(in instruction) (taken, sure bool) {
	y := value{in.k, true}
	if in.code&srcX != 0 {
		y = s.x
	}
	if !s.a.known || !y.known {
		return false, false
	}
	switch in.code & 0xf0 {
	case 0x10:
		return s.a.v == y.v, true
	case 0x20:
		return s.a.v > y.v, true
	case 0x30:
		return s.a.v >= y.v, true
	case 0x40:
		return s.a.v&y.v != 0, true
	}
	return false, false
}

// step carries out an instruction that is neither a return nor a conditional
// jump.
func (s *state) step(in instruction, arch, nr uint32) {
	switch in.code {
	case ldW:
		switch in.k {
		case dataNr:
			s.a = value{nr, true}
		case dataArc:
			s.a = value{arch, true}
		default:
			s.a = value{}
		}
	case ldLen:
		s.a = value{dataLen, true}
	case ldxLen:
		s.x = value{dataLen, true}
	case ldImm:
		s.a = value{in.k, true}
	case ldxImm:
		s.x = value{in.k, true}
	case ldMem:
		s.a = s.mem[in.k&15]
	case ldxMem:
		s.x = s.mem[in.k&15]
	case st:
		s.mem[in.k&15] = s.a
	case stx:
		s.mem[in.k&15] = s.x
	case tax:
		s.x = s.a
	case txa:
		s.a = s.x
	case ja:
		s.pc += int(in.k)
	default:
		if in.code&7 == classALU {
			s.calculate(in)
			return
		}
		s.a, s.x = value{}, value{}
	}
}

func (s *state) calculate(in instruction) {
	y := value{in.k, true}
	if in.code&srcX != 0 {
		y = s.x
	}
	op := in.code & 0xf0
	if op == 0x80 { // BPF_NEG has no second operand
		y = value{0, true}
	}
	if !s.a.known || !y.known || (op == 0x30 || op == 0x90) && y.v == 0 {
		s.a = value{}
		return
	}
	switch op {
	case 0x00:
		s.a.v += y.v
	case 0x10:
		s.a.v -= y.v
	case 0x20:
		s.a.v *= y.v
	case 0x30:
		s.a.v /= y.v
	case 0x40:
		s.a.v |= y.v
	case 0x50:
		s.a.v &= y.v
	case 0x60:
		s.a.v <<= y.v & 31
	case 0x70:
		s.a.v >>= y.v & 31
	case 0x80:
		s.a.v = -s.a.v
	case 0xa0:
		s.a.v ^= y.v
	default:
		s.a = value{}
	}
}
