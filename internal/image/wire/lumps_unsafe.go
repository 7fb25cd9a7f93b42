package wire

import (
	"reflect"
	"unsafe"
)

// decoder decodes messages and takes memory for their parts in lumps, each twice
// as large as the one before: a list of ten thousand messages shall not be a
// hundred thousand allocations. What was decoded keeps its whole lump alive.
type decoder struct {
	scalars  []uint64
	strings  []string
	nScalars int // of the last lump
	nStrings int
	structs  []lump
	last     string // that was decoded: neighbours often have the same
}

// lump is room for structs of one type.
type lump struct {
	of      *message
	next    unsafe.Pointer
	left, n int
}

// mostLump bounds a lump.
const mostLump = 512

// scalar gives room for one scalar. It is 8 bytes, aligned for any of them.
func (d *decoder) scalar(atMost int) unsafe.Pointer {
	if len(d.scalars) == 0 {
		d.nScalars = min(max(2*d.nScalars, min(atMost, 64)), mostLump)
		d.scalars = make([]uint64, d.nScalars)
	}
	p := unsafe.Pointer(&d.scalars[0])
	d.scalars = d.scalars[1:]
	return p
}

// text gives a string with the bytes of v.
func (d *decoder) text(v []byte) string {
	if string(v) != d.last {
		d.last = string(v)
	}
	return d.last
}

// pointer gives the address of a string of its own.
func (d *decoder) pointer(s string) *string {
	if len(d.strings) == 0 {
		d.nStrings = min(max(2*d.nStrings, 1), mostLump)
		d.strings = make([]string, d.nStrings)
	}
	p := &d.strings[0]
	*p = s
	d.strings = d.strings[1:]
	return p
}

// structure gives an empty struct of a message's type.
func (d *decoder) structure(m *message) unsafe.Pointer {
	for i := range d.structs {
		if l := &d.structs[i]; l.of == m {
			if l.left == 0 {
				l.n = min(2*l.n, mostLump)
				l.next, l.left = structures(m, l.n), l.n
			}
			p := l.next
			if l.left--; l.left > 0 {
				l.next = unsafe.Add(p, m.typ.Size())
			}
			return p
		}
	}
	d.structs = append(d.structs, lump{of: m, n: 1})
	return structures(m, 1)
}

// structures gives n empty structs, one behind the other. The type is the one
// that package reflect made m of, so that the collector knows their pointers.
func structures(m *message, n int) unsafe.Pointer {
	return reflect.MakeSlice(reflect.SliceOf(m.typ), n, n).UnsafePointer()
}

// decodeAll decodes messages of one type.
func (m *message) decodeAll(raw [][]byte, take func(i int, v reflect.Value)) (int, error) {
	if len(raw) == 0 {
		return 0, nil
	}
	var d decoder
	p := structures(m, len(raw))
	for i, b := range raw {
		if i > 0 {
			p = unsafe.Add(p, m.typ.Size())
		}
		if err := m.decode(b, p, &d); err != nil {
			return i, err
		}
		take(i, reflect.NewAt(m.typ, p))
	}
	return 0, nil
}
