package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// whole makes an other's whole tree what is looked at: where regions are mapped,
// and that all of it lives, untraced and not stopped.
func (o *other) whole(want int) {
	o.t.Helper()
	o.pids = o.pids[:1]
	for i := 0; i < len(o.pids); i++ {
		for _, tid := range tasks(o.pids[i]) {
			kids, err := procfs.ReadChildren(o.pids[i], tid)
			if err != nil {
				o.t.Fatal(err)
			}
			o.pids = append(o.pids, kids...)
		}
	}
	if len(o.pids) != want {
		o.t.Fatalf("the tree has %d processes, not %d", len(o.pids), want)
	}
	threads := map[string]bool{}
	for _, pid := range o.pids {
		for _, tid := range tasks(pid) {
			threads[fmt.Sprintf("%d/%d", pid, tid)] = true
		}
	}
	o.more = func() string {
		for key := range threads {
			if s := field(key, "State"); s == "gone" || strings.ContainsAny(s[:1], "TtZX") {
				return fmt.Sprintf("thread %s: state %s", key, s)
			}
			if p := field(key, "TracerPid"); p != "0" {
				return fmt.Sprintf("thread %s: traced by %s", key, p)
			}
		}
		for _, pid := range o.pids {
			for _, tid := range tasks(pid) {
				if key := fmt.Sprintf("%d/%d", pid, tid); !threads[key] {
					return "thread " + key + " was not there"
				}
			}
		}
		return ""
	}
}

// TestKillMany: many processes with threads, entered and left side by side: at
// each step, in any of them, and at random.
func TestKillMany(t *testing.T) {
	bin := compile(t, "many")
	begin := func() *other {
		o := startOther(t, words, bin)
		o.many = true
		o.whole(51)
		return o
	}
	killAll(t, count(45), begin)

	dir := t.TempDir()
	o := begin()
	defer func() { o.kill() }()
	r := start(t, o.target, dir, nil)
	began := time.Now()
	if err := r.wait(); err != nil {
		t.Fatalf("%v\n%s", err, r.out.String())
	}
	span := time.Since(began)
	os.RemoveAll(r.dir)
	late := 0
	for range count(15) {
		at := time.Duration(rand.Int64N(int64(span)))
		r := start(t, o.target, dir, nil)
		time.Sleep(at)
		r.cmd.Process.Signal(unix.SIGKILL)
		// The machine has other things to do, now more, now less.
		if r.wait() == nil {
			late++
			span = max(span*7/8, time.Millisecond)
		} else {
			span = span * 33 / 32
		}
		why := clean(o.target, r.cmd.Process.Pid, dir)
		if why == "" {
			why = o.health()
		}
		if why != "" {
			t.Errorf("killed after %v of %v: %s\n%s", at, span, why, r.out.String())
			o.kill()
			o = begin()
		}
		os.RemoveAll(r.dir)
	}
	t.Logf("within %v, %d came too late", span, late)
}
