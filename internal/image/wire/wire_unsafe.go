package wire

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// This file reads and writes the fields of structs through their offsets. The
// offsets, and the kinds that say what type lies there, are those that package
// reflect gave for the struct type; the pointers come from values of that type,
// which the callers keep alive.

// at gives a pointer to what lies at an offset of a struct.
func at[T any](p unsafe.Pointer, off uintptr) *T { return (*T)(unsafe.Add(p, off)) }

// append appends the encoding of the struct at p.
func (m *message) append(b []byte, p unsafe.Pointer) []byte {
	for _, f := range m.order {
		switch {
		case f.repeated:
			b = f.appendList(b, p)
		case f.kind == kindBytes:
			if v := *at[[]byte](p, f.off); v != nil {
				b = protowire.AppendVarint(b, f.tag)
				b = protowire.AppendBytes(b, v)
			}
		default:
			if v := *at[unsafe.Pointer](p, f.off); v != nil {
				b = protowire.AppendVarint(b, f.tag)
				b = f.appendValue(b, v)
			}
		}
	}
	return append(b, *at[[]byte](p, m.unknown)...)
}

// appendValue appends the value at v, without its tag: a scalar, a string, or
// the struct of a message.
func (f *field) appendValue(b []byte, v unsafe.Pointer) []byte {
	switch f.kind {
	case kindUint32:
		return protowire.AppendVarint(b, uint64(*(*uint32)(v)))
	case kindUint64:
		return protowire.AppendVarint(b, *(*uint64)(v))
	case kindInt32:
		return protowire.AppendVarint(b, uint64(*(*int32)(v)))
	case kindBool:
		return protowire.AppendVarint(b, protowire.EncodeBool(*(*bool)(v)))
	case kindZigzag32:
		return protowire.AppendVarint(b, protowire.EncodeZigZag(int64(*(*int32)(v))))
	case kindZigzag64:
		return protowire.AppendVarint(b, protowire.EncodeZigZag(*(*int64)(v)))
	case kindFixed32:
		return protowire.AppendFixed32(b, *(*uint32)(v))
	case kindFixed64:
		return protowire.AppendFixed64(b, *(*uint64)(v))
	case kindString:
		return protowire.AppendString(b, *(*string)(v))
	}
	begin := len(b)
	return prefix(f.message().append(append(b, 0), v), begin)
}

// prefix puts the length of what lies behind b[begin] in front of it: one byte
// is kept free for that, which is enough nearly always.
func prefix(b []byte, begin int) []byte {
	n := len(b) - begin - 1
	if n < 1<<7 {
		b[begin] = byte(n)
		return b
	}
	size := protowire.SizeVarint(uint64(n))
	b = append(b, make([]byte, size-1)...)
	copy(b[begin+size:], b[begin+1:begin+1+n])
	binary.PutUvarint(b[begin:], uint64(n))
	return b
}

// appendList appends a repeated field.
func (f *field) appendList(b []byte, p unsafe.Pointer) []byte {
	list := *at[[]struct{}](p, f.off) // the header of any slice
	n := len(list)
	if n == 0 {
		return b
	}
	data := unsafe.Pointer(unsafe.SliceData(list))
	if f.packed {
		b = protowire.AppendVarint(b, f.tag)
		begin := len(b)
		b = append(b, 0)
		for i := range n {
			b = f.appendValue(b, unsafe.Add(data, uintptr(i)*f.typ.Elem().Size()))
		}
		return prefix(b, begin)
	}
	for i := range n {
		b = protowire.AppendVarint(b, f.tag)
		switch f.kind {
		case kindMessage:
			b = f.appendValue(b, *at[unsafe.Pointer](data, uintptr(i)*unsafe.Sizeof(data)))
		case kindBytes:
			b = protowire.AppendBytes(b, *at[[]byte](data, uintptr(i)*unsafe.Sizeof([]byte(nil))))
		default:
			b = f.appendValue(b, unsafe.Add(data, uintptr(i)*f.typ.Elem().Size()))
		}
	}
	return b
}

// decode decodes b into the struct at p.
func (m *message) decode(b []byte, p unsafe.Pointer, d *decoder) error {
	for len(b) > 0 {
		num, typ, n := protowire.Number(b[0]>>3), protowire.Type(b[0]&7), 1
		if b[0] >= 0x80 || num == 0 { // it is longer, or none
			if num, typ, n = protowire.ConsumeTag(b); n < 0 {
				return fmt.Errorf("%v: %w", m.typ, protowire.ParseError(n))
			}
		}
		if num > protowire.MaxValidNumber {
			return fmt.Errorf("%v: field number %d", m.typ, num)
		}
		f := m.at(num)
		used := -1
		if f != nil {
			var err error
			if used, err = f.decode(b[n:], typ, p, d, m.scalars); err != nil {
				return err
			}
		}
		if used < 0 { // not known, or not of the type that it should have
			used = protowire.ConsumeFieldValue(num, typ, b[n:])
			if used < 0 {
				return fmt.Errorf("%v: field %d: %w", m.typ, num, protowire.ParseError(used))
			}
			u := at[[]byte](p, m.unknown)
			*u = protowire.AppendTag(*u, num, typ)
			*u = append(*u, b[n:n+used]...)
		}
		b = b[n+used:]
	}
	return nil
}

// decode decodes one value of a field, which lies at the beginning of b, and
// gives its length there; it is below 0 where that is no value of this field.
func (f *field) decode(b []byte, typ protowire.Type, p unsafe.Pointer, d *decoder, scalars int) (int, error) {
	where := unsafe.Add(p, f.off)
	switch {
	case typ == protowire.BytesType && f.kind >= kindString:
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return -1, nil // which the caller finds too
		}
		switch {
		case f.kind == kindString && f.repeated:
			s := (*[]string)(where)
			*s = append(*s, d.text(v))
		case f.kind == kindString:
			*(**string)(where) = d.pointer(d.text(v))
		case f.kind == kindBytes && f.repeated:
			s := (*[][]byte)(where)
			*s = append(*s, share(v))
		case f.kind == kindBytes:
			*(*[]byte)(where) = share(v)
		default:
			sub := *(*unsafe.Pointer)(where)
			if f.repeated || sub == nil {
				sub = d.structure(f.message())
			}
			// Entered first: what has been decoded counts, as in the library.
			if f.repeated {
				s := (*[]unsafe.Pointer)(where)
				*s = append(*s, sub)
			} else {
				*(*unsafe.Pointer)(where) = sub
			}
			return n, f.message().decode(v, sub, d)
		}
		return n, nil
	case typ == protowire.BytesType && f.repeated:
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return -1, nil
		}
		for len(v) > 0 {
			x, used := f.scalar(v)
			if used < 0 {
				return 0, fmt.Errorf("field %d: %w", f.num, protowire.ParseError(used))
			}
			f.push(where, x)
			v = v[used:]
		}
		return n, nil
	case typ == f.kind.wireType() && f.kind < kindString:
		x, n := f.scalar(b)
		if n < 0 {
			return -1, nil
		}
		if f.repeated {
			f.push(where, x)
			return n, nil
		}
		slot := *(*unsafe.Pointer)(where)
		if slot == nil {
			// A field takes two bytes at least, of which its tag is one.
			slot = d.scalar(min(scalars, len(b)/2+1))
			*(*unsafe.Pointer)(where) = slot
		}
		f.store(slot, x)
		return n, nil
	}
	return -1, nil
}

// share gives bytes that nobody appends to, and that are not nil.
func share(v []byte) []byte {
	if len(v) == 0 {
		return []byte{}
	}
	return v[:len(v):len(v)]
}

// scalar reads one scalar; n is below 0 where there is none.
func (f *field) scalar(b []byte) (x uint64, n int) {
	switch f.kind {
	case kindFixed32:
		v, n := protowire.ConsumeFixed32(b)
		return uint64(v), n
	case kindFixed64:
		return protowire.ConsumeFixed64(b)
	}
	if len(b) > 0 && b[0] < 0x80 {
		x, n = uint64(b[0]), 1
	} else {
		x, n = protowire.ConsumeVarint(b)
	}
	switch f.kind {
	case kindZigzag32:
		x = uint64(protowire.DecodeZigZag(x & 0xffffffff))
	case kindZigzag64:
		x = uint64(protowire.DecodeZigZag(x))
	}
	return x, n
}

// store writes a scalar to where one of this field's type lies.
func (f *field) store(to unsafe.Pointer, x uint64) {
	switch f.kind {
	case kindBool:
		*(*bool)(to) = x != 0
	case kindUint64, kindZigzag64, kindFixed64:
		*(*uint64)(to) = x
	default:
		*(*uint32)(to) = uint32(x)
	}
}

// push appends a scalar to the slice of a repeated field.
func (f *field) push(where unsafe.Pointer, x uint64) {
	switch f.kind {
	case kindBool:
		s := (*[]bool)(where)
		*s = append(*s, x != 0)
	case kindUint64, kindZigzag64, kindFixed64:
		s := (*[]uint64)(where)
		*s = append(*s, x)
	default:
		s := (*[]uint32)(where)
		*s = append(*s, uint32(x))
	}
}
