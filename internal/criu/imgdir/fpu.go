package imgdir

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	core_x86 "github.com/checkpoint-restore/go-criu/v8/crit/images/core-x86"
)

// The extended registers of x86-64. ptrace(2) gives them as XSAVE writes them in
// its standard format (Intel SDM volume 1, chapter 13): the legacy area, a
// header whose first word says which components are there, then each component
// at the place that CPUID leaf 0xD tells. The schema has a list for each
// component.

const (
	legacySize = 512
	headerEnd  = legacySize + 64
)

// Components of the extended state, by their bits in the header.
const (
	compYmm    = 2
	compBndreg = 3
	compBndcsr = 4
	compOpmask = 5
	compZmm    = 6
	compHi16   = 7
	compPkru   = 9
)

// standardSize are the bytes of each component that the schema has lists for.
var componentSize = map[int]int{compYmm: 256, compBndreg: 64, compBndcsr: 64, compOpmask: 64, compZmm: 512, compHi16: 1024, compPkru: 8}

// takeApart gives the schema's form of an XSAVE area.
func takeApart(x []byte) (*core_x86.UserX86FpregsEntry, error) {
	if len(x) < headerEnd {
		return nil, fmt.Errorf("extended registers of %d bytes", len(x))
	}
	u := func(at int) *uint32 { return proto.Uint32(uint32(le.Uint16(x[at:]))) }
	f := &core_x86.UserX86FpregsEntry{
		Cwd: u(0), Swd: u(2), Twd: u(4), Fop: u(6), Rip: proto.Uint64(le.Uint64(x[8:])), Rdp: proto.Uint64(le.Uint64(x[16:])),
		Mxcsr: proto.Uint32(le.Uint32(x[24:])), MxcsrMask: proto.Uint32(le.Uint32(x[28:])),
		StSpace: words(x[32:160]), XmmSpace: words(x[160:416]),
	}
	bv := le.Uint64(x[legacySize:])
	s := &core_x86.UserX86XsaveEntry{XstateBv: proto.Uint64(bv)}
	f.Xsave = s
	part := func(c int) []byte {
		size := componentSize[c]
		b := make([]byte, size)
		if at := componentAt(c); bv>>c&1 != 0 && at > 0 && at+size <= len(x) {
			copy(b, x[at:])
		}
		return b
	}
	has := func(c int) bool { at := componentAt(c); return at > 0 && at+componentSize[c] <= len(x) }
	if has(compYmm) {
		s.YmmhSpace = words(part(compYmm))
	}
	if has(compBndreg) && has(compBndcsr) {
		s.BndregState, s.BndcsrState = quads(part(compBndreg)), quads(part(compBndcsr))
	}
	if has(compOpmask) {
		s.OpmaskReg, s.ZmmUpper, s.Hi16Zmm = quads(part(compOpmask)), quads(part(compZmm)), quads(part(compHi16))
	}
	if has(compPkru) {
		s.Pkru = words(part(compPkru))
	}
	return f, nil
}

// putTogether is the reverse, for this machine's layout.
func putTogether(f *core_x86.UserX86FpregsEntry) ([]byte, error) {
	total := stateSize()
	if total < headerEnd {
		return nil, fmt.Errorf("this machine has no XSAVE")
	}
	x := make([]byte, total)
	for at, v := range map[int]uint32{0: f.GetCwd(), 2: f.GetSwd(), 4: f.GetTwd(), 6: f.GetFop()} {
		le.PutUint16(x[at:], uint16(v))
	}
	le.PutUint64(x[8:], f.GetRip())
	le.PutUint64(x[16:], f.GetRdp())
	le.PutUint32(x[24:], f.GetMxcsr())
	le.PutUint32(x[28:], f.GetMxcsrMask())
	putWords(x[32:160], f.GetStSpace())
	putWords(x[160:416], f.GetXmmSpace())
	s := f.GetXsave()
	bv := uint64(3) // x87 and SSE
	if s != nil {
		bv = s.GetXstateBv()
	}
	for c, size := range componentSize {
		if bv>>c&1 == 0 {
			continue
		}
		b := make([]byte, size)
		switch c {
		case compYmm:
			putWords(b, s.GetYmmhSpace())
		case compBndreg:
			putQuads(b, s.GetBndregState())
		case compBndcsr:
			putQuads(b, s.GetBndcsrState())
		case compOpmask:
			putQuads(b, s.GetOpmaskReg())
		case compZmm:
			putQuads(b, s.GetZmmUpper())
		case compHi16:
			putQuads(b, s.GetHi16Zmm())
		case compPkru:
			putWords(b, s.GetPkru())
		}
		at := componentAt(c)
		if at == 0 || at+size > total {
			return nil, fmt.Errorf("component %d of the extended registers, which this processor does not have", c)
		}
		copy(x[at:], b)
	}
	known := uint64(3)
	for c := range componentSize {
		known |= 1 << c
	}
	le.PutUint64(x[legacySize:], bv&known)
	return x, nil
}

func words(b []byte) []uint32 {
	out := make([]uint32, len(b)/4)
	for i := range out {
		out[i] = le.Uint32(b[4*i:])
	}
	return out
}

func quads(b []byte) []uint64 {
	out := make([]uint64, len(b)/8)
	for i := range out {
		out[i] = le.Uint64(b[8*i:])
	}
	return out
}

func putWords(b []byte, v []uint32) {
	for i := 0; i < len(v) && 4*i+4 <= len(b); i++ {
		le.PutUint32(b[4*i:], v[i])
	}
}

func putQuads(b []byte, v []uint64) {
	for i := 0; i < len(v) && 8*i+8 <= len(b); i++ {
		le.PutUint64(b[8*i:], v[i])
	}
}
