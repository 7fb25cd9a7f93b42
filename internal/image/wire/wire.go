// Package wire encodes and decodes protobuf messages by the struct tags of
// their generated types, https://protobuf.dev/programming-guides/encoding.
//
// The bytes are those of the protobuf library with Deterministic and
// AllowPartial. That library examines every message type through its descriptor
// when it first meets it, which took a processor longer than everything else in
// the checkpoint of a small program. Here a type costs a walk over its fields.
//
// Known are singular and repeated scalars, strings, bytes and messages, which is
// what the schemas of CRIU and of fermata consist of: no maps, groups, oneofs or
// extensions. A type with anything else makes these functions panic; the test of
// this package knows all types.
package wire

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// kind is how the value of a field lies in memory and in the encoding.
type kind uint8

const (
	kindUint32   kind = iota // varint
	kindUint64               // varint
	kindInt32                // varint, sign extended to 64 bits
	kindBool                 // varint
	kindZigzag32             // varint
	kindZigzag64             // varint
	kindFixed32              // four bytes
	kindFixed64              // eight bytes
	kindString
	kindBytes
	kindMessage
)

// wireType gives the type of the encoding for a kind that is not packed.
func (k kind) wireType() protowire.Type {
	switch k {
	case kindFixed32:
		return protowire.Fixed32Type
	case kindFixed64:
		return protowire.Fixed64Type
	case kindString, kindBytes, kindMessage:
		return protowire.BytesType
	}
	return protowire.VarintType
}

// field is one field of a struct.
type field struct {
	num      protowire.Number
	kind     kind
	repeated bool
	packed   bool
	tag      uint64  // number and wire type, as it is written
	off      uintptr // in the struct
	typ      reflect.Type
	elem     atomic.Pointer[message] // of a kindMessage, once it was needed
}

// message gives what is known of the messages of a kindMessage. Most that a
// schema allows never occur in an image.
func (f *field) message() *message {
	m := f.elem.Load()
	if m == nil {
		p := f.typ
		if f.repeated {
			p = p.Elem()
		}
		m = messageOf(p)
		f.elem.Store(m)
	}
	return m
}

// message is what is known of a struct type.
type message struct {
	typ     reflect.Type
	fields  []field
	order   []*field // by number
	byNum   []*field // at their numbers, those below 128
	unknown uintptr  // offset of the bytes of fields that are not known
	scalars int      // singular scalars, which are pointers
}

// at finds a field by its number.
func (m *message) at(num protowire.Number) *field {
	if int(num) < len(m.byNum) {
		return m.byNum[num]
	}
	if num >= 128 {
		for _, f := range m.order {
			if f.num == num {
				return f
			}
		}
	}
	return nil
}

var types sync.Map // of reflect.Type to *message

// messageOf gives what is known of the struct type that pointers of type p
// refer to.
func messageOf(p reflect.Type) *message {
	if m, ok := types.Load(p); ok {
		return m.(*message)
	}
	m, _ := types.LoadOrStore(p, examine(p.Elem()))
	return m.(*message)
}

// examine reads a type's struct tags.
func examine(t reflect.Type) *message {
	m := &message{typ: t, fields: make([]field, t.NumField())}
	n := 0
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Name == "unknownFields" {
			m.unknown = sf.Offset
		}
		if !sf.IsExported() {
			continue
		}
		f := &m.fields[n]
		n++
		if !f.parse(sf) {
			panic(fmt.Sprintf("wire: %v.%s %v `%s`: not of a kind that is known", t, sf.Name, sf.Type, sf.Tag))
		}
		if !f.repeated && f.kind < kindString {
			m.scalars++
		}
	}
	m.fields = m.fields[:n]
	order := make([]*field, n)
	last := protowire.Number(0)
	for i := range order {
		order[i] = &m.fields[i]
		last = max(last, order[i].num)
	}
	slices.SortFunc(order, func(a, b *field) int { return int(a.num) - int(b.num) })
	m.order = order
	m.byNum = make([]*field, min(last, 127)+1)
	for _, f := range order {
		if int(f.num) < len(m.byNum) {
			m.byNum[f.num] = f
		}
	}
	return m
}

// parse reads the tag of a field, encoding, number, label, then details; false
// where it is of no known kind.
func (f *field) parse(sf reflect.StructField) bool {
	enc, rest, ok := strings.Cut(sf.Tag.Get("protobuf"), ",")
	if !ok {
		return false
	}
	number, rest, _ := strings.Cut(rest, ",")
	num, err := strconv.Atoi(number)
	if err != nil {
		return false
	}
	label, rest, _ := strings.Cut(rest, ",")
	f.num, f.off, f.typ = protowire.Number(num), sf.Offset, sf.Type
	f.repeated = label == "rep"
	f.packed = strings.HasPrefix(rest, "packed,")
	elem := sf.Type
	switch {
	case f.repeated:
		if elem.Kind() != reflect.Slice {
			return false
		}
		elem = elem.Elem()
	case elem.Kind() == reflect.Pointer && elem.Elem().Kind() != reflect.Struct:
		elem = elem.Elem()
	case elem.Kind() != reflect.Pointer && elem.Kind() != reflect.Slice:
		return false // a scalar without presence
	}
	is := func(ks ...reflect.Kind) bool { return slices.Contains(ks, elem.Kind()) }
	switch {
	case enc == "varint" && is(reflect.Uint32):
		f.kind = kindUint32
	case enc == "varint" && is(reflect.Uint64, reflect.Int64):
		f.kind = kindUint64
	case enc == "varint" && is(reflect.Int32):
		f.kind = kindInt32
	case enc == "varint" && is(reflect.Bool):
		f.kind = kindBool
	case enc == "zigzag32" && is(reflect.Int32):
		f.kind = kindZigzag32
	case enc == "zigzag64" && is(reflect.Int64):
		f.kind = kindZigzag64
	case enc == "fixed32" && is(reflect.Uint32, reflect.Int32, reflect.Float32):
		f.kind = kindFixed32
	case enc == "fixed64" && is(reflect.Uint64, reflect.Int64, reflect.Float64):
		f.kind = kindFixed64
	case enc == "bytes" && is(reflect.String):
		f.kind = kindString
	case enc == "bytes" && is(reflect.Slice) && elem.Elem().Kind() == reflect.Uint8:
		f.kind = kindBytes
	case enc == "bytes" && is(reflect.Pointer) && elem.Elem().Kind() == reflect.Struct:
		f.kind = kindMessage
	default:
		return false
	}
	typ := f.kind.wireType()
	if f.packed {
		typ = protowire.BytesType
	}
	f.tag = protowire.EncodeTag(f.num, typ)
	return true
}

// Append appends the encoding of m to b. Fields that are required and missing
// are left out like others.
func Append(b []byte, m proto.Message) []byte {
	v := reflect.ValueOf(m)
	if v.IsNil() {
		return b
	}
	return messageOf(v.Type()).append(b, v.UnsafePointer())
}

// Unmarshal decodes b into m, which must be empty. Fields of type bytes share
// their memory with b. Fields that are not known are kept and written again;
// fields that are required may be missing. An error means that b is not the
// encoding of a message.
func Unmarshal(b []byte, m proto.Message) error {
	v := reflect.ValueOf(m)
	return messageOf(v.Type()).decode(b, v.UnsafePointer(), &decoder{})
}

// UnmarshalAll is Unmarshal for messages of the type of sample; it gives each to
// take. An error tells which it is about.
func UnmarshalAll(raw [][]byte, sample proto.Message, take func(i int, m proto.Message)) (bad int, err error) {
	return messageOf(reflect.TypeOf(sample)).decodeAll(raw, func(i int, v reflect.Value) {
		take(i, v.Interface().(proto.Message))
	})
}

// Clone gives a deep copy of m.
func Clone[T proto.Message](m T) T {
	v := reflect.ValueOf(m)
	if v.IsNil() {
		return m
	}
	out := reflect.New(v.Type().Elem()).Interface().(T)
	if err := Unmarshal(Append(nil, m), out); err != nil {
		panic(fmt.Sprintf("wire: %T: %v", m, err)) // it was encoded just now
	}
	return out
}

// Equal tells whether two messages have one type and the same encoding.
func Equal(a, b proto.Message) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && slices.Equal(Append(nil, a), Append(nil, b))
}
