package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// untrack ends the tracking of the target's writes, if there is any, and tells what
// is left of it in the target.
func untrack(g *target) string {
	for _, pid := range g.pids {
		_ = exec.Command(fermata, "track", "--stop", strconv.Itoa(pid)).Run() // not tracked, perhaps
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		for _, f := range fds {
			if l, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, f.Name())); err == nil && strings.Contains(l, "userfaultfd") {
				return fmt.Sprintf("pid %d has a userfaultfd", pid)
			}
		}
	}
	return ""
}

// registered tells whether areas of the target are still registered.
func registered(g *target) string {
	for _, pid := range g.pids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
		for l := range strings.Lines(string(b)) {
			if strings.HasPrefix(l, "VmFlags:") && strings.Contains(l, " uw") {
				return fmt.Sprintf("pid %d has areas that are registered with a userfaultfd", pid)
			}
		}
	}
	return ""
}

// TestKillWhileTracking kills fermata at each step of what the tracking of writes
// takes, when it begins and when it goes on: the target is unharmed, and nothing of
// the tracking is left when its keeper has been told to end.
func TestKillWhileTracking(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	base := filepath.Join(dir, "base")
	begin := func() {
		t.Helper()
		os.RemoveAll(base)
		if out, err := exec.Command(fermata, "checkpoint", "--track", "--to", base, strconv.Itoa(g.pid())).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	kinds := []struct {
		name   string
		before func()
		flags  []string
	}{
		{"begins", func() {}, []string{"--track"}},
		{"goes on", begin, []string{"--parent", base}},
		{"goes on from a snapshot", begin, []string{"--parent", base, "--snapshot=always"}},
	}
	n := 0
	for _, k := range kinds {
		k.before()
		points, failing, _ := trace(t, g, dir, k.flags...)
		if why := untrack(g); why != "" {
			t.Fatal(why)
		}
		var faults []string
		for _, p := range points {
			if strings.HasPrefix(p, "track.") || strings.HasPrefix(p, "keeper.") || strings.HasPrefix(p, "userfaultfd.") || p == "draft.publish" || p == "draft.published" {
				faults = append(faults, "kill:"+p+":1")
			}
		}
		for _, p := range failing {
			if strings.HasPrefix(p, "userfaultfd.") {
				faults = append(faults, "fail:"+p+":1")
			}
		}
		if len(faults) < 6 {
			t.Fatalf("%s: only %v", k.name, faults)
		}
		for _, f := range faults {
			k.before()
			r := start(t, g, dir, []string{"FERMATA_FAULT=" + f}, k.flags...)
			err := r.wait()
			if err == nil && strings.HasPrefix(f, "kill:") {
				t.Errorf("%s, %s: not reached", k.name, f)
			}
			n++
			why := untrack(g)
			if why == "" {
				why = g.after(r, dir)
			}
			if why == "" {
				why = registered(g)
			}
			if why != "" {
				t.Errorf("%s, %s: %s\n%s", k.name, f, why, r.out.String())
				g.kill()
				g = startTarget(t)
			}
			os.RemoveAll(r.dir)
		}
	}
	t.Logf("%d faults", n)
}

// TestKeeperKilled: the death of the keeper harms nobody; the next checkpoint compares
// and says why.
func TestKeeperKilled(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	save := func(flags ...string) string {
		t.Helper()
		args := append(append([]string{"checkpoint", "--json"}, flags...), strconv.Itoa(g.pid()))
		out, err := exec.Command(fermata, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
	save("--track", "--to", a)
	out, err := exec.Command(fermata, "track", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var tracked struct {
		Tracked []struct {
			PIDs   []int
			Ref    string
			Keeper int
		}
	}
	if err := json.Unmarshal(out, &tracked); err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, x := range tracked.Tracked {
		if slices.Contains(x.PIDs, g.pid()) && x.Ref == a {
			killed++
			if err := unix.Kill(x.Keeper, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if killed != 1 {
		t.Fatalf("%d keepers: %s", killed, out)
	}
	for end := time.Now().Add(patience); registered(g) != ""; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(registered(g))
		}
	}
	if why := g.health(); why != "" {
		t.Fatal(why)
	}
	if said := save("--to", b, "--parent", a); !strings.Contains(said, `"mode":"compared"`) || !strings.Contains(said, "its keeper has ended") {
		t.Errorf("after the keeper's death: %s", said)
	}
	save("--to", c, "--track")
	if said := save("--to", filepath.Join(dir, "d"), "--parent", b); !strings.Contains(said, `"mode":"compared"`) {
		t.Errorf("with a parent that the tracking did not begin with: %s", said)
	}
	if why := untrack(g); why != "" {
		t.Error(why)
	}
	if why := g.health(); why != "" {
		t.Error(why)
	}
}
