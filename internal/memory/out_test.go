package memory

import (
	"bytes"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
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

// TestSameFrame looks at pages of this very process: one is known by its frame
// only as long as it has that frame.
func TestSameFrame(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 2*sys.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	at := uint64(uintptr(unsafe.Pointer(&mem[0])))
	p, err := OpenPagemap(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ents := make([]uint64, 2)
	if err := sys.ReadPagemap(int(p.f.Fd()), at, ents); err != nil {
		t.Fatal(err)
	}
	frame := ents[0] & sys.PMFrameMask
	if frame == 0 {
		t.Skip("frames are shown to CAP_SYS_ADMIN only")
	}
	for i := range ents {
		ents[i] &^= sys.PMExclusive // as if another had them too
	}
	o := NewOutgoing()
	defer o.Close()
	for _, c := range []struct {
		at   uint64
		same bool
	}{{at, true}, {at + sys.PageSize, false}} { // the second: the frame was that page's once
		o.frames[frame] = framed{7, c.at, os.Getpid()}
		got, err := o.same(p, at, ents)
		if err != nil {
			t.Fatal(err)
		}
		if got == nil || (got[0].pid != 0) != c.same || got[1].pid != 0 {
			t.Errorf("frame of %#x, noted for %#x: %v", at, c.at, got)
		}
	}
}
