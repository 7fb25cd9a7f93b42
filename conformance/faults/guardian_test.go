package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestHangingIsEnded stops fermata in the middle, as if it hung: its guardian
// ends it after a while, and the program goes on.
func TestHangingIsEnded(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	points := []string{"freeze.read", "bootstrap.go", "executor.started", "detach.runs", "draft.meta", "thaw.detach"}
	if testing.Short() {
		points = points[2:3]
	}
	for _, p := range points {
		began := time.Now()
		r := start(t, g, dir, []string{"FERMATA_FAULT=stop:" + p + ":1", "FERMATA_PATIENCE_MS=300"}, "--kill")
		if err := r.wait(); err == nil {
			if p != "thaw.detach" { // which --kill does not pass
				t.Errorf("stopped at %s: it ended well", p)
			}
			continue
		}
		if ws := r.cmd.ProcessState.Sys().(interface{ Signaled() bool }); !ws.Signaled() {
			t.Errorf("stopped at %s: %v\n%s", p, r.cmd.ProcessState, r.out.String())
		}
		if d := time.Since(began); d < 300*time.Millisecond || d > patience {
			t.Errorf("stopped at %s: ended after %v", p, d)
		}
		if why := g.after(r, dir); why != "" {
			t.Errorf("stopped at %s: %s", p, why)
			g.kill()
			g = startTarget(t)
		}
		os.RemoveAll(r.dir)
	}
}

// TestProgressIsNoHang: a controller that is slow, but gets on, is left alone.
func TestProgressIsNoHang(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	for range 3 {
		r := start(t, g, dir, []string{"FERMATA_PATIENCE_MS=1000"})
		if err := r.wait(); err != nil {
			t.Fatalf("%v\n%s", err, r.out.String())
		}
		if why := leftovers(g, r.cmd.Process.Pid, dir); why != "" {
			t.Errorf("at the end of a checkpoint: %s", why)
		}
		os.RemoveAll(r.dir)
	}
}

// TestGuardianMayDie kills the guardian too, at each of its own steps: then
// something may be left behind, but nothing harms the program.
func TestGuardianMayDie(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	points := []string{"guardian.draft", "guardian.freeze", "freeze.seize", "freeze.read", "guardian.adopt",
		"enter.registers", "enter.mask", "enter.go", "enter.runs", "executor.start", "release.interrupt", "release.stop",
		"detach.frame", "detach.registers", "detach.go", "detach.runs", "aide.spawn", "aide.spawned", "aide.registers",
		"aide.go", "aide.runs", "aide.dismiss", "restore.mask", "restore.registers", "restore.done",
		"region.unlinked", "guardian.released", "thaw.detach", "thaw.detached"}
	n := count(2 * len(points))
	for i := range n {
		p := points[i%len(points)]
		nth := 1 + i/len(points)%3
		at := []string{"enter.runs", "executor.started", "restore.registers"}[i%3]
		r := start(t, g, dir, []string{"FERMATA_FAULT=kill:" + at + ":1", fmt.Sprintf("FERMATA_GUARDIAN_FAULT=kill:%s:%d", p, nth)})
		if r.wait() == nil {
			t.Fatalf("not killed at %s", at)
		}
		// Whatever is left of the guardian ends.
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			reap()
			if s := strangers(); len(s) == 0 {
				break
			} else if time.Now().After(end) {
				t.Fatalf("guardian killed at %s: still there: %v", p, s)
			}
		}
		if why := g.health(); why != "" {
			t.Errorf("fermata killed at %s, guardian at %s: %s", at, p, why)
			g.kill()
			g = startTarget(t)
		}
		sweep(r, dir)
	}
}

// sweep removes what a killed run and its killed guardian left on the machine.
func sweep(r *run, dir string) {
	b, _ := os.ReadFile("/proc/sysvipc/shm")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 5 && f[4] == strconv.Itoa(r.cmd.Process.Pid) {
			exec.Command("ipcrm", "-m", f[1]).Run()
		}
	}
	d, _ := filepath.Glob(filepath.Join(dir, "*.partial-*"))
	for _, e := range d {
		os.RemoveAll(e)
	}
}

// TestGuardianIsQuiet: beside a checkpoint runs one process in a session of its
// own that holds nothing of anybody's.
func TestGuardianIsQuiet(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	r := start(t, g, dir, []string{"FERMATA_FAULT=stop:executor.started:1"})
	defer func() {
		r.cmd.Process.Kill()
		r.wait()
		if why := g.after(r, dir); why != "" {
			t.Error(why)
		}
	}()
	pid := r.cmd.Process.Pid
	var kid string
	for end := time.Now().Add(patience); kid == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no guardian")
		}
		s := field(fmt.Sprintf("%d/%d", pid, pid), "State")
		ts, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, f := range ts {
			b, _ := os.ReadFile(f)
			if s != "" && s[0] == 'T' && len(b) > 0 {
				kid = strings.TrimSpace(string(b))
			}
		}
	}
	cmdline, _ := os.ReadFile("/proc/" + kid + "/cmdline")
	if string(cmdline) != "fermata-guardian\x00" {
		t.Errorf("it is called %q", cmdline)
	}
	comm, _ := os.ReadFile("/proc/" + kid + "/comm")
	if string(comm) != "fermata-guardia\n" {
		t.Errorf("comm %q", comm)
	}
	n, _ := strconv.Atoi(kid)
	if sid, err := unix.Getsid(n); err != nil || sid != n {
		t.Errorf("session %d %v", sid, err)
	}
	if cwd, err := os.Readlink("/proc/" + kid + "/cwd"); cwd != "/" {
		t.Errorf("cwd %q %v", cwd, err)
	}
	fds, _ := os.ReadDir("/proc/" + kid + "/fd")
	for _, f := range fds {
		link, _ := os.Readlink("/proc/" + kid + "/fd/" + f.Name())
		want := map[string]string{"0": "pipe:", "1": fermata, "2": "anon_inode:[pidfd]", "3": "/memfd:fermata-journal"}[f.Name()]
		if want == "" || !strings.HasPrefix(link, want) {
			t.Errorf("fd %s: %s", f.Name(), link)
		}
	}
	if len(fds) != 4 {
		t.Errorf("%d descriptors", len(fds))
	}
	// Nobody but fermata itself holds the other end.
	pipe, _ := os.Readlink("/proc/" + kid + "/fd/0")
	all, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, f := range all {
		if l, err := os.Readlink(f); err == nil && l == pipe && !strings.HasPrefix(f, "/proc/"+kid+"/") && !strings.HasPrefix(f, fmt.Sprintf("/proc/%d/", pid)) {
			t.Errorf("%s holds the pipe", f)
		}
	}
	if _, err := os.Stat("/proc/" + kid); errors.Is(err, os.ErrNotExist) {
		t.Error("it is gone")
	}
}
