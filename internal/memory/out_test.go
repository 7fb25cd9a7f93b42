package memory

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

func TestForget(t *testing.T) {
	const p = sys.PageSize
	o := NewOutgoing()
	o.held = bytes.Repeat([]byte{1}, 8*p)
	runs := &fm.PageRuns{Vaddr: []uint64{0x10000, 0x20000}, Pages: []uint64{4, 4}, Off: []uint64{0, 4 * p}}
	got := o.Forget(runs, 0x10000+p, 0x10000+2*p)
	want := &fm.PageRuns{Vaddr: []uint64{0x10000, 0x10000 + 2*p, 0x20000}, Pages: []uint64{1, 2, 4}, Off: []uint64{0, 2 * p, 4 * p}}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for i := range 8 {
		if b, want := o.held[i*p+100], byte(1); (b != want) != (i == 1) {
			t.Errorf("page %d has %d", i, b)
		}
	}
	if got := o.Forget(runs, 0x10000, 0x24000); len(got.GetVaddr()) != 0 {
		t.Errorf("all of it: %v is left", got)
	}
}
