package kmem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The kernel's type information (Documentation/bpf/btf.rst, include/uapi/linux/btf.h):
// a header, types one behind the other, and strings. A type begins with the
// offset of its name, its kind and count, and a size or the type it refers to.
const (
	btfMagic  = 0xeb9f
	btfHeader = 24

	kindInt      = 1
	kindPtr      = 2
	kindArray    = 3
	kindStruct   = 4
	kindUnion    = 5
	kindEnum     = 6
	kindTypedef  = 8
	kindVolatile = 9
	kindConst    = 10
	kindRestrict = 11
	kindFunc     = 12
	kindProto    = 13
	kindVar      = 14
	kindDatasec  = 15
	kindFloat    = 16
	kindDeclTag  = 17
	kindTypeTag  = 18
	kindEnum64   = 19
)

var errBTF = errors.New("BTF in a form that is not known")

// types is that information, looked at only as far as is asked.
type types struct {
	raw     []byte   // of the types
	at      []uint32 // where type i lies in raw; 0 is void
	strs    []byte
	structs map[string]uint32
	known   map[string]field
}

// field is where a member lies.
type field struct {
	off, size   int
	bits, shift uint // of a bit field
	typ         uint32
}

func parseBTF(b []byte) (*types, error) {
	if len(b) < btfHeader || binary.LittleEndian.Uint16(b) != btfMagic {
		return nil, errBTF
	}
	u := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(b[off:])) }
	part := func(off, n uint64) []byte {
		off += u(4)
		if off > uint64(len(b)) || n > uint64(len(b))-off {
			return nil
		}
		return b[off : off+n]
	}
	t := &types{raw: part(u(8), u(12)), strs: part(u(16), u(20)), structs: map[string]uint32{}, known: map[string]field{}}
	if t.raw == nil || t.strs == nil {
		return nil, errBTF
	}
	t.at = append(make([]uint32, 0, len(t.raw)/24), 0)
	for at := 0; at < len(t.raw); {
		if len(t.raw)-at < 12 {
			return nil, errBTF
		}
		kind, n := t.kind(at)
		switch kind {
		case kindInt, kindVar, kindDeclTag:
			n = 4
		case kindArray:
			n = 12
		case kindStruct, kindUnion, kindDatasec, kindEnum64:
			n *= 12
		case kindEnum, kindProto:
			n *= 8
		default:
			n = 0
		}
		if n > len(t.raw)-at-12 {
			return nil, errBTF
		}
		t.at = append(t.at, uint32(at))
		at += 12 + n
	}
	return t, nil
}

func (t *types) word(at int) uint32 { return binary.LittleEndian.Uint32(t.raw[at:]) }

func (t *types) kind(at int) (kind, n int) {
	i := t.word(at + 4)
	return int(i >> 24 & 31), int(i & 0xffff)
}

func (t *types) name(off uint32) string {
	if int(off) >= len(t.strs) {
		return ""
	}
	s, _, _ := bytes.Cut(t.strs[off:], []byte{0})
	return string(s)
}

// find gives the type of a structure or union, 0 when there is none.
func (t *types) find(name string) uint32 {
	if id, ok := t.structs[name]; ok {
		return id
	}
	found := t.findKind(name, kindStruct, kindUnion)
	t.structs[name] = found
	return found
}

// findKind gives the first type of a name that is of one of some kinds, 0 when
// there is none.
func (t *types) findKind(name string, kinds ...int) uint32 {
	if i := bytes.Index(t.strs, []byte("\x00"+name+"\x00")); i >= 0 && name != "" {
		for id, at := range t.at {
			if id == 0 || t.word(int(at)) != uint32(i+1) {
				continue
			}
			if kind, _ := t.kind(int(at)); slices.Contains(kinds, kind) {
				return uint32(id)
			}
		}
	}
	return 0
}

// plain gives the type behind names and qualifiers.
func (t *types) plain(id uint32) uint32 {
	for range 64 {
		if id == 0 || int(id) >= len(t.at) {
			return 0 // 0 is void
		}
		switch kind, _ := t.kind(int(t.at[id])); kind {
		case kindTypedef, kindVolatile, kindConst, kindRestrict, kindTypeTag:
			id = t.word(int(t.at[id]) + 8)
		default:
			return id
		}
	}
	return 0
}

// size gives a type's bytes, 0 when it has none.
func (t *types) size(id uint32) int {
	n := 1
	for range 16 {
		if id = t.plain(id); id == 0 {
			return 0
		}
		at := int(t.at[id])
		switch kind, _ := t.kind(at); kind {
		case kindInt, kindStruct, kindUnion, kindEnum, kindEnum64, kindFloat:
			return n * int(t.word(at+8))
		case kindPtr:
			return n * 8
		case kindArray:
			id = t.word(at + 12)
			n *= int(t.word(at + 20))
		default:
			return 0
		}
	}
	return 0
}

// sizeOf gives the bytes of a structure, 0 when there is none of that name.
func (t *types) sizeOf(name string) int {
	if id := t.find(name); id != 0 {
		return t.size(id)
	}
	return 0
}

// member finds a structure's member: "a", or "a.b" for a member of a member.
// Members of structures without a name are members.
func (t *types) member(typ, path string) (field, error) {
	key := typ + "." + path
	if f, ok := t.known[key]; ok {
		return f, nil
	}
	f := field{typ: t.find(typ)}
	if f.typ == 0 {
		return f, fmt.Errorf("%w: this kernel has no struct %s", ErrUnavailable, typ)
	}
	for name := range strings.SplitSeq(path, ".") {
		g, ok := t.in(f.typ, name, 0)
		if !ok {
			return f, fmt.Errorf("%w: struct %s has no %s in this kernel", ErrUnavailable, typ, path)
		}
		g.off += f.off
		f = g
	}
	f.size = t.size(f.typ)
	t.known[key] = f
	return f, nil
}

func (t *types) in(id uint32, name string, depth int) (field, bool) {
	if id = t.plain(id); id == 0 || depth > 16 {
		return field{}, false
	}
	at := int(t.at[id])
	kind, n := t.kind(at)
	if kind != kindStruct && kind != kindUnion {
		return field{}, false
	}
	packed := t.word(at+4)>>31 != 0 // offsets with the width of bit fields
	for i := range n {
		m := at + 12 + 12*i
		bit, width := t.word(m+8), uint(0)
		if packed {
			bit, width = bit&0xffffff, uint(bit>>24)
		}
		f := field{off: int(bit / 8), typ: t.word(m + 4)}
		switch mname := t.name(t.word(m)); {
		case mname == name:
			if width > 0 {
				size := max(1, t.size(f.typ))
				f.off = int(bit/8) / size * size
				f.bits, f.shift = width, uint(int(bit)-8*f.off)
			}
			return f, true
		case mname == "":
			if g, ok := t.in(f.typ, name, depth+1); ok {
				g.off += f.off
				return g, true
			}
		}
	}
	return field{}, false
}
