package seccomp

import (
	"encoding/binary"
	"maps"
	"testing"
)

const x8664 = 0xc000003e

func prog(ins ...instruction) Filter { return ins }

func TestAnswers(t *testing.T) {
	// As libseccomp writes them: architecture, x32, a list, a default; and one
	// call that is allowed with certain arguments only.
	f := prog(
		instruction{ldW, 0, 0, 4},
		instruction{0x15, 0, 7, x8664}, // jeq arch
		instruction{ldW, 0, 0, 0},
		instruction{0x35, 5, 0, 0x40000000}, // jge x32
		instruction{0x15, 3, 0, 1},          // write
		instruction{0x15, 0, 4, 16},         // ioctl
		instruction{ldW, 0, 0, 24},          // its second argument
		instruction{0x15, 0, 2, 0x5401},
		instruction{retK, 0, 0, uint32(Allow)},
		instruction{retK, 0, 0, uint32(KillProcess)},
		instruction{retK, 0, 0, uint32(Errno) | 38},
	)
	for nr, want := range map[uint32]map[Answer]bool{
		1:          {Allow: true},
		16:         {Allow: true, Errno: true},
		30:         {Errno: true},
		0x40000001: {KillProcess: true},
	} {
		if got := f.Answers(x8664, nr); !maps.Equal(got, want) {
			t.Errorf("call %#x: %v, want %v", nr, got, want)
		}
	}
	if got := f.Answers(0x40000003, 1); !maps.Equal(got, map[Answer]bool{KillProcess: true}) {
		t.Errorf("of another architecture: %v", got)
	}
}

func TestUnknownIsFollowedBothWays(t *testing.T) {
	f := prog(
		instruction{ldW, 0, 0, 16}, // an argument
		instruction{st, 0, 0, 3},
		instruction{ldImm, 0, 0, 7},
		instruction{ldxMem, 0, 0, 3},
		instruction{0x0c, 0, 0, 0},    // add x
		instruction{0x45, 0, 1, 0x10}, // jset
		instruction{retK, 0, 0, uint32(Trap)},
		instruction{ldImm, 0, 0, uint32(Log) >> 4},
		instruction{0x64, 0, 0, 4}, // lsh
		instruction{retA, 0, 0, 0},
	)
	if got, want := f.Answers(x8664, 5), (map[Answer]bool{Trap: true, Log: true}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTooLongIsTheWorst(t *testing.T) {
	// 40 forks on an unknown value: 2^40 paths.
	f := prog(instruction{ldW, 0, 0, 16})
	for range 40 {
		f = append(f, instruction{0x45, 0, 0, 1})
	}
	f = append(f, instruction{retK, 0, 0, uint32(Allow)})
	if !f.Answers(x8664, 1)[KillProcess] {
		t.Error("a filter that was not followed to its end is taken for harmless")
	}
}

func TestAsks(t *testing.T) {
	if prog(instruction{retK, 0, 0, uint32(Allow)}).Asks() || !prog(instruction{retK, 0, 0, uint32(Notify)}).Asks() {
		t.Error("a supervised filter is not told apart")
	}
}

func FuzzFilter(f *testing.F) {
	var b [16]byte
	binary.NativeEndian.PutUint16(b[0:], ldW)
	binary.NativeEndian.PutUint16(b[8:], retK)
	f.Add(b[:], uint32(1))
	f.Fuzz(func(t *testing.T, b []byte, nr uint32) {
		p := Parse(b)
		p.Asks()
		if len(p.Answers(x8664, nr)) == 0 {
			t.Error("no answer")
		}
	})
}
