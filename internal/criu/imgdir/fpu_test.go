package imgdir

import (
	"bytes"
	"runtime"
	"testing"

	"google.golang.org/protobuf/proto"

	core_x86 "github.com/checkpoint-restore/go-criu/v8/crit/images/core-x86"
)

// Extended registers come through the schema's form as they were.
func TestExtendedRegisters(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("registers of amd64")
	}
	x := make([]byte, stateSize())
	for i := range x[:416] {
		x[i] = byte(i*7 + 1)
	}
	have := uint64(3)
	for c, size := range componentSize {
		if at := componentAt(c); at > 0 && at+size <= len(x) {
			have |= 1 << c
			for i := range size {
				x[at+i] = byte(c*31 + i)
			}
		}
	}
	if have&(1<<compYmm) == 0 {
		t.Log("no AVX here: little to see")
	}
	le.PutUint64(x[legacySize:], have)
	f, err := takeApart(x)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(f) // every field that the schema requires is there
	if err != nil {
		t.Fatal(err)
	}
	back := &core_x86.UserX86FpregsEntry{}
	if err := proto.Unmarshal(b, back); err != nil {
		t.Fatal(err)
	}
	y, err := putTogether(back)
	if err != nil {
		t.Fatal(err)
	}
	for c := range componentSize {
		if at := componentAt(c); have>>c&1 != 0 && !bytes.Equal(x[at:at+componentSize[c]], y[at:at+componentSize[c]]) {
			t.Errorf("component %d came back otherwise", c)
		}
	}
	if !bytes.Equal(x[:416], y[:416]) || le.Uint64(y[legacySize:]) != have {
		t.Error("the legacy part or the header came back otherwise")
	}
}

// A component that the header leaves out is not read from what lies there.
func TestInitialComponents(t *testing.T) {
	if runtime.GOARCH != "amd64" || componentAt(compYmm) == 0 {
		t.Skip("needs AVX")
	}
	x := make([]byte, stateSize())
	le.PutUint64(x[legacySize:], 3)
	x[componentAt(compYmm)] = 0xff
	f, err := takeApart(x)
	if err != nil {
		t.Fatal(err)
	}
	if f.GetXsave().GetYmmhSpace()[0] != 0 {
		t.Error("what the header does not have was taken")
	}
	if _, err := takeApart(x[:100]); err == nil {
		t.Error("a stump was taken")
	}
}
