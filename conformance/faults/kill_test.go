package faults

import (
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var kills = flag.Int("kills", env("FERMATA_KILLS"), "how often fermata is killed by each test (0: about 100 times, few with -short; default $FERMATA_KILLS)")

func env(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}

func count(long int) int {
	switch {
	case *kills > 0:
		return *kills
	case testing.Short():
		return 10
	}
	return long
}

// modes are the flags of the runs that are killed.
var modes = [][]string{nil, {"--kill"}, {"--snapshot=always"}}

// TestKillAtRandom kills fermata at any instant of its run.
func TestKillAtRandom(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	// How long a run takes.
	var took []time.Duration
	for range 7 {
		r := start(t, g, dir, nil)
		began := time.Now()
		if err := r.wait(); err != nil {
			t.Fatalf("%v\n%s", err, r.out.String())
		}
		took = append(took, time.Since(began))
		os.RemoveAll(r.dir)
		if why := g.health(); why != "" {
			t.Fatalf("after a whole run: %s", why)
		}
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	span := took[len(took)/2]
	n := count(100)
	bad, finished := 0, 0
	for i := range n {
		r := start(t, g, dir, nil, modes[i%len(modes)]...)
		began := time.Now()
		at := time.Duration(rand.Int64N(int64(span + span/8)))
		if at > 500*time.Microsecond {
			time.Sleep(at - 400*time.Microsecond)
		}
		for time.Since(began) < at {
		}
		r.cmd.Process.Signal(unix.SIGKILL)
		// The machine has other things to do, now more, now less.
		if r.wait() == nil {
			finished++
			span = max(span*7/8, time.Millisecond)
		} else {
			span = span * 33 / 32
		}
		if why := g.after(r, dir); why != "" {
			t.Errorf("killed after %v of %v (%v): %s\n%s", at, span, modes[i%len(modes)], why, r.out.String())
			bad++
			g.kill()
			g = startTarget(t)
		}
		os.RemoveAll(r.dir)
	}
	t.Logf("%d kills within %v, %d came too late, %d targets harmed; EINTR of calls that any stop breaks off: %v; excess of sleeps in ms %v; left behind for at most %v", n, span, finished, bad, g.page.deaf[:2], g.page.over, slowest)
}

// after says what is wrong after a run that was killed. A target that was
// meant to end, once its checkpoint is there, is started anew.
func (g *target) after(r *run, dir string) string {
	// The guardian first, which stops the target for a moment once more, or ends
	// what fermata had begun to end.
	if why := clean(g, r.cmd.Process.Pid, dir); why != "" {
		return "left behind: " + why
	}
	why := g.health()
	if why == "" || g.alive() || !r.published() || !slices.Contains(r.cmd.Args, "--kill") {
		return why
	}
	for end := time.Now().Add(patience); !g.ended(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return "only a part of it was ended"
		}
	}
	g.kill()
	*g = *startTarget(g.t)
	return ""
}
