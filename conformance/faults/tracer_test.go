package faults

import (
	"encoding/binary"
	"os"
	"testing"
)

// TestKillTracer: a tracer with its tracees goes on as if nothing had happened,
// wherever fermata is killed. Between the interrupt of a tracee that runs and the
// note of that the tracer may see what any stop shows it; how often is logged.
func TestKillTracer(t *testing.T) {
	bin := compile(t, "tracer")
	broken := uint64(0)
	last := ""
	begin := func() *other {
		o := startOther(t, words, bin)
		last = o.cmd.Args[1]
		o.more = func() string {
			if b, err := os.ReadFile(last); err == nil {
				broken = max(broken, binary.LittleEndian.Uint64(b[16:]))
			}
			return ""
		}
		return o
	}
	killAll(t, count(150), begin)
	// While the tracees are let go, which nothing may do twice.
	killAt(t, "traced.pay", count(40), begin)
	t.Logf("stops that the tracer saw of what no program may notice: at most %d of one program", broken)
}
