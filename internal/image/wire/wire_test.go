package wire_test

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/fermata-cr/fermata" // every message that is used
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/image/wire"
)

// messages gives every message type of the two schemas.
func messages(t testing.TB) (out []protoreflect.MessageType) {
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		if !strings.HasPrefix(string(mt.Descriptor().FullName()), "google.") {
			out = append(out, mt)
		}
		return true
	})
	slices.SortFunc(out, func(a, b protoreflect.MessageType) int {
		return strings.Compare(string(a.Descriptor().FullName()), string(b.Descriptor().FullName()))
	})
	if len(out) < 100 {
		t.Fatalf("%d message types: where are they?", len(out))
	}
	return out
}

// fill sets fields of a message at random.
func fill(r *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if r.IntN(4) == 0 || depth > 4 {
			continue
		}
		if fd.IsList() {
			for range r.IntN(4) {
				l := m.Mutable(fd).List()
				if fd.Kind() == protoreflect.MessageKind {
					fill(r, l.AppendMutable().Message(), depth+1)
				} else {
					l.Append(value(r, fd))
				}
			}
		} else if fd.Kind() == protoreflect.MessageKind {
			fill(r, m.Mutable(fd).Message(), depth+1)
		} else {
			m.Set(fd, value(r, fd))
		}
	}
	if r.IntN(4) == 0 { // fields of a later version
		m.SetUnknown(append(m.GetUnknown(), 0xc2, 0xf4, 0x03, 0x02, 'h', 'i'))
	}
}

func value(r *rand.Rand, fd protoreflect.FieldDescriptor) protoreflect.Value {
	n := r.Uint64() >> r.IntN(64)
	if r.IntN(3) == 0 {
		n = -n
	}
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n&1 != 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(n)
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.Repeat("s", r.IntN(200)))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(bytes.Repeat([]byte{byte(n)}, r.IntN(20000)>>r.IntN(16)))
	}
	panic(fd.FullName() + ": no values of kind " + protoreflect.FullName(fd.Kind().String()))
}

var (
	marshal   = proto.MarshalOptions{AllowPartial: true, Deterministic: true}
	unmarshal = proto.UnmarshalOptions{AllowPartial: true}
)

// TestLists: messages that are decoded together, and take their memory in lumps,
// are as if each had been decoded alone, and have nothing in common.
func TestLists(t *testing.T) {
	for _, mt := range messages(t) {
		r := rand.New(rand.NewPCG(2, 3))
		var raw [][]byte
		var want []proto.Message
		for range 70 {
			m := mt.New()
			fill(r, m, 3)
			want = append(want, m.Interface())
			raw = append(raw, wire.Append(nil, m.Interface()))
		}
		got := make([]proto.Message, len(raw))
		if i, err := wire.UnmarshalAll(raw, mt.Zero().Interface(), func(i int, m proto.Message) { got[i] = m }); err != nil {
			t.Fatalf("%s, %d: %v", mt.Descriptor().FullName(), i, err)
		}
		for i := range got {
			if !proto.Equal(got[i], want[i]) {
				t.Fatalf("%s, %d: decoded as\n%v\nnot\n%v", mt.Descriptor().FullName(), i, got[i], want[i])
			}
			// Through its pointers, so that a neighbour with the same ones shows.
			scramble(reflect.ValueOf(got[i]).Elem())
		}
		raw[30] = append(raw[30], 0x0b) // a group that does not end
		if i, err := wire.UnmarshalAll(raw, mt.Zero().Interface(), func(int, proto.Message) {}); err == nil || i != 30 {
			t.Fatalf("%s: a broken message: %d, %v", mt.Descriptor().FullName(), i, err)
		}
	}
}

// scramble changes what the pointers of a message lead to.
func scramble(v reflect.Value) {
	for i := range v.NumField() {
		if f := v.Field(i); v.Type().Field(i).IsExported() && f.Kind() == reflect.Pointer && !f.IsNil() {
			if f.Elem().Kind() == reflect.Struct {
				scramble(f.Elem())
			} else {
				f.Elem().Set(reflect.Zero(f.Type().Elem()))
			}
		}
	}
}

// TestSameBytes compares with the protobuf library, for every message there is.
func TestSameBytes(t *testing.T) {
	for _, mt := range messages(t) {
		for seed := range uint64(30) {
			r := rand.New(rand.NewPCG(seed, 1))
			m := mt.New()
			fill(r, m, 0)
			want, err := marshal.Marshal(m.Interface())
			if err != nil {
				t.Fatal(err)
			}
			got := wire.Append([]byte("before"), m.Interface())
			if string(got[:6]) != "before" || !bytes.Equal(got[6:], want) {
				t.Fatalf("%s, seed %d: encoded as\n%x, not\n%x\n%v", mt.Descriptor().FullName(), seed, got[6:], want, m)
			}
			back := mt.New().Interface()
			if err := wire.Unmarshal(want, back); err != nil {
				t.Fatalf("%s, seed %d: %v", mt.Descriptor().FullName(), seed, err)
			}
			if !proto.Equal(back, m.Interface()) {
				t.Fatalf("%s, seed %d: decoded as\n%v\nnot\n%v", mt.Descriptor().FullName(), seed, back, m)
			}
		}
	}
}

// TestFieldNumber: the encoding has room for numbers that no field may have, and
// several forms of one.
func TestFieldNumber(t *testing.T) {
	for _, b := range [][]byte{{0xa0, 0xb1, 0xb5, 0x91, 0x16, 0xc2, 0xf4, 0x03}, {0x00, 0x01}, {0xb0, 0x80, 0x00, 0x40}, {0xf8, 0xff, 0xff, 0xff, 0x0f, 0x01}} {
		for _, mt := range messages(t) {
			compare(t, mt, b)
		}
	}
}

// TestDamage compares, for damaged and foreign bytes, what the protobuf library
// makes of them: an error, or the same message.
func TestDamage(t *testing.T) {
	all := messages(t)
	failed := 0
	for seed := range uint64(6000) {
		r := rand.New(rand.NewPCG(seed, 2))
		from, to := all[r.IntN(len(all))], all[r.IntN(len(all))]
		if seed%2 == 0 {
			to = from
		}
		m := from.New()
		fill(r, m, 2)
		b, err := marshal.Marshal(m.Interface())
		if err != nil || len(b) == 0 {
			continue
		}
		if len(b) > 4000 {
			b = b[:4000]
		}
		for range r.IntN(4) {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		compare(t, to, b[:r.IntN(len(b)+1)])
		if unmarshal.Unmarshal(b, to.New().Interface()) != nil {
			failed++
		}
	}
	if failed < 200 {
		t.Errorf("only %d were damaged", failed)
	}
}

func compare(t *testing.T, mt protoreflect.MessageType, b []byte) {
	t.Helper()
	want, got := mt.New().Interface(), mt.New().Interface()
	werr, gerr := unmarshal.Unmarshal(b, want), wire.Unmarshal(b, got)
	if (werr == nil) != (gerr == nil) {
		t.Fatalf("%s, %x: %v, not %v", mt.Descriptor().FullName(), b, gerr, werr)
	}
	if werr == nil && !proto.Equal(want, got) {
		t.Fatalf("%s, %x: decoded as\n%v\nnot\n%v", mt.Descriptor().FullName(), b, got, want)
	}
}

func FuzzUnmarshal(f *testing.F) {
	all := messages(f)
	for i, mt := range all {
		m := mt.New()
		fill(rand.New(rand.NewPCG(uint64(i), 3)), m, 3)
		b, err := marshal.Marshal(m.Interface())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint16(i), b)
	}
	f.Fuzz(func(t *testing.T, which uint16, b []byte) {
		compare(t, all[int(which)%len(all)], b)
	})
}

func TestCloneAndEqual(t *testing.T) {
	a := &fm.Manifest{Version: proto.Uint32(1), Roots: []uint32{7, 8}, Stores: []*fm.StoreFile{{Name: proto.String("pages-0")}}}
	b := wire.Clone(a)
	if !proto.Equal(a, b) || !wire.Equal(a, b) {
		t.Errorf("the copy is %v, not %v", b, a)
	}
	*b.Version, *b.Stores[0].Name = 2, "other"
	if *a.Version != 1 || *a.Stores[0].Name != "pages-0" {
		t.Errorf("the copy shares memory with the original")
	}
	if wire.Equal(a, b) || wire.Equal(a, &fm.StoreFile{}) {
		t.Error("different messages are equal")
	}
	if wire.Clone[*fm.Manifest](nil) != nil {
		t.Error("the copy of nothing")
	}
}
