package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

// trace gives the points that a run passes, in order, and those that can be
// made to fail.
func trace(t *testing.T, g *target, dir string, flags ...string) (points, failing []string, times map[string]int) {
	t.Helper()
	file := filepath.Join(dir, "trace")
	r := start(t, g, dir, []string{"FERMATA_FAULT=trace:" + file}, flags...)
	if err := r.wait(); err != nil {
		t.Fatalf("%v\n%s", err, r.out.String())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(file)
	os.RemoveAll(r.dir)
	times = map[string]int{}
	for _, l := range strings.Fields(string(b)) {
		name, can := strings.CutPrefix(l, "?")
		if times[l]++; times[l] == 1 {
			if can {
				failing = append(failing, name)
			} else {
				points = append(points, name)
			}
		}
	}
	sort.Strings(failing)
	return points, failing, times
}

// TestKillAtEachStep kills fermata between every two of its effects.
func TestKillAtEachStep(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	// What a run without a snapshot passes, then what only one with it does.
	type point struct {
		name string
		mode []string
		nth  int
	}
	plain, _, times := trace(t, g, dir)
	snapshot := []string{"--snapshot=always"}
	more, _, moreTimes := trace(t, g, dir, snapshot...)
	if len(plain) < 30 || len(more) < len(plain)+5 {
		t.Fatalf("only %d and %d points: %v", len(plain), len(more), more)
	}
	var points []point
	for _, p := range plain {
		points = append(points, point{p, modes[rand.IntN(2)], times[p]})
	}
	for _, p := range more {
		if times[p] == 0 || strings.HasPrefix(p, "executor.") {
			points = append(points, point{p, snapshot, moreTimes[p]})
		}
	}
	n := count(160)
	bad, late := 0, 0
	at := map[string]int{}
	for i := range n {
		p, mode := points[i%len(points)].name, points[i%len(points)].mode
		nth := 1
		if i >= len(points) {
			nth += rand.IntN(points[i%len(points)].nth)
		}
		fault := fmt.Sprintf("FERMATA_FAULT=kill:%s:%d", p, nth)
		if i%3 == 2 {
			fault += fmt.Sprintf(":%d", rand.IntN(60))
		}
		r := start(t, g, dir, []string{fault}, mode...)
		if r.wait() == nil {
			late++
		}
		if why := g.after(r, dir); why != "" {
			t.Errorf("%s %v: %s\n%s", fault, mode, why, r.out.String())
			at[p]++
			bad++
			g.kill()
			g = startTarget(t)
		}
		os.RemoveAll(r.dir)
	}
	t.Logf("%d kills at %d points, %d not reached, %d targets harmed %v; EINTR of calls that any stop breaks off: %v; excess of sleeps in ms %v; left behind for at most %v", n, len(points), late, bad, at, g.page.deaf[:2], g.page.over, slowest)
}

// TestFailAtEachStep makes each step fail in turn: fermata says so, and the
// program goes on.
func TestFailAtEachStep(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	snapshot := []string{"--snapshot=always"}
	_, failing, times := trace(t, g, dir, snapshot...)
	if len(failing) < 8 {
		t.Fatalf("only %d steps can fail: %v", len(failing), failing)
	}
	for _, p := range failing {
		for _, nth := range []int{1, times["?"+p]} {
			r := start(t, g, dir, []string{fmt.Sprintf("FERMATA_FAULT=fail:%s:%d", p, nth)}, snapshot...)
			err := r.wait()
			var exit *exec.ExitError
			switch {
			case err == nil && nth == 1 && !strings.HasPrefix(p, "aide."): // that is not always needed
				t.Errorf("%s: it did not fail", p)
			case err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(r.out.String(), "injected failure")):
				t.Errorf("%s: %v\n%s", p, err, r.out.String())
			}
			if err != nil && r.published() {
				t.Errorf("%s: a checkpoint in spite of the failure", p)
			}
			if why := g.after(r, dir); why != "" {
				t.Errorf("failed at %s, time %d: %s\n%s", p, nth, why, r.out.String())
				g.kill()
				g = startTarget(t)
			}
			os.RemoveAll(r.dir)
			if testing.Short() {
				break
			}
		}
	}
	t.Logf("%d steps failed: %v", len(failing), failing)
}
