package tracee

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// TestOwing: the calls for each tracee go together, and the list then begins
// behind them, wherever it lies.
func TestOwing(t *testing.T) {
	for _, addr := range []uint64{0x7f0000000000, 1<<32 - offCalls, 1<<32 - offCalls - 17*callSize} {
		e := &Executor{Slot: &Slot{mem: make([]byte, SlotSize), addr: addr + SlotSize}}
		s := &Slot{mem: make([]byte, SlotSize), addr: addr}
		s.Reset()
		o := &Owing{e: e, s: s, must: map[int]string{}}
		e.put64(offUndo, addr+offCalls)
		var begins []int
		for i := range 4 {
			begins = append(begins, s.n)
			st := Stop{Request: sys.PtraceCont}
			if i%2 == 1 {
				st = Stop{Request: sys.PtraceSyscall, Reissue: make([]byte, sys.RegsSize), Quiet: true}
			}
			if err := o.Add(Traced{TID: i + 1}, st); err != nil {
				t.Fatal(err)
			}
		}
		begins = append(begins, s.n)
		next := 0
		for i := 0; i <= s.n; i++ {
			if i == begins[next] {
				if i < s.n && s.goesWith(i) {
					t.Errorf("call %d goes with the tracee before", i)
				}
				at, n := le.Uint64(e.mem[offUndo:]), int(le.Uint32(e.mem[offUndoN:]))
				if at != addr+uint64(offCalls+i*callSize) || n != s.n-i {
					t.Errorf("list at %#x: %d calls at %#x are left, not %d at call %d", addr, n, at, s.n-i, i)
				}
				next++
			} else if !s.goesWith(i) {
				t.Errorf("call %d may be left out", i)
			}
			if i == s.n {
				break
			}
			c := s.mem[offCalls+i*callSize:]
			if le.Uint64(c) != unix.SYS_FUTEX {
				continue
			}
			// FUTEX_WAKE_OP, as futex(2) tells: an addition, of a signed number of
			// twelve bits.
			op := le.Uint32(c[56:])
			if op>>28 != futexAdd {
				t.Fatalf("operation %#x", op)
			}
			by := int32(op<<8) >> 20
			off := le.Uint64(c[48:]) - e.addr
			le.PutUint32(e.mem[off:], le.Uint32(e.mem[off:])+uint32(by))
		}
	}
}
