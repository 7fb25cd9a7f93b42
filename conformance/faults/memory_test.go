package faults

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// group makes a control group of a controller, of whichever version this machine
// has, and gives its directory, and whether the version is the second.
func group(t *testing.T, controller, file string) (dir string, second bool) {
	t.Helper()
	name := "fermata-" + controller + "-test-" + strconv.Itoa(os.Getpid())
	v1, v2 := "/sys/fs/cgroup/"+controller, "/sys/fs/cgroup"
	b, _ := os.ReadFile(v2 + "/cgroup.subtree_control")
	_, err := os.Stat(filepath.Join(v1, file))
	if err != nil {
		_, err = os.Stat(filepath.Join(v1, "cgroup.clone_children"))
	}
	switch {
	case err == nil:
		dir = filepath.Join(v1, name)
	case strings.Contains(string(b), controller):
		dir, second = filepath.Join(v2, name), true
	default:
		t.Skipf("no control group has the controller %q here", controller)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var err error
		for range 500 {
			if err = os.Remove(dir); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error(err)
	})
	return dir, second
}

// memoryGroup makes one that limits memory, and gives the names of two of its
// files, too.
func memoryGroup(t *testing.T) (dir, limit, usage string) {
	t.Helper()
	dir, second := group(t, "memory", "memory.limit_in_bytes")
	limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
	if second {
		limit, usage = "memory.max", "memory.current"
	}
	return dir, filepath.Join(dir, limit), filepath.Join(dir, usage)
}

func put(t *testing.T, path string, n uint64) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strconv.FormatUint(n, 10)), 0); err != nil {
		t.Fatal(err)
	}
}

func number(t *testing.T, path string) uint64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const writerMiB = 48

// startWriter starts a writer in a control group.
func startWriter(t *testing.T, dir string) *other {
	t.Helper()
	bin := compile(t, "writer")
	// It joins before it takes any memory.
	sh := filepath.Join(t.TempDir(), "join")
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%s/cgroup.procs && exec %s \"$@\"\n", dir, bin)
	if err := os.WriteFile(sh, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return startOther(t, words, sh, strconv.Itoa(writerMiB))
}

// TestMemoryLimitBefore: where a control group leaves no room for a snapshot of
// the memory, there is none, and a note says so.
func TestMemoryLimitBefore(t *testing.T) {
	dir, limit, usage := memoryGroup(t)
	o := startWriter(t, dir)
	defer o.kill()
	put(t, limit, number(t, usage)+writerMiB<<19)
	to := t.TempDir()
	r := start(t, o.target, to, nil)
	if err := r.wait(); err != nil || !r.published() || !strings.Contains(r.out.String(), "stood still") || !strings.Contains(r.out.String(), dir+" allows") {
		t.Errorf("%v\n%s", err, r.out.String())
	}
	// With room there is one.
	put(t, limit, number(t, usage)+2*writerMiB<<20)
	r2 := start(t, o.target, to, nil)
	if err := r2.wait(); err != nil || !r2.published() || strings.Contains(r2.out.String(), "stood still") {
		t.Errorf("%v\n%s", err, r2.out.String())
	}
	for _, r := range []*run{r, r2} {
		why := clean(o.target, r.cmd.Process.Pid, to)
		if why == "" {
			why = o.health()
		}
		if why != "" {
			t.Error(why)
		}
	}
}

// TestMemoryLimitReached: the limit is reached while the snapshot is there, since
// the program writes all of its memory at once. The snapshot goes, the program
// does not, and the checkpoint is made without one.
func TestMemoryLimitReached(t *testing.T) {
	dir, limit, usage := memoryGroup(t)
	o := startWriter(t, dir)
	defer o.kill()
	to := t.TempDir()
	r := start(t, o.target, to, []string{"FERMATA_FAULT=stop:snapshot.thawed:1"})
	seen := false
	for end := time.Now().Add(patience); !seen && time.Now().Before(end); time.Sleep(time.Millisecond) {
		seen = strings.HasPrefix(field(fmt.Sprintf("%d/%d", r.cmd.Process.Pid, r.cmd.Process.Pid), "State"), "T")
	}
	if !seen {
		r.cmd.Process.Kill()
		r.wait()
		t.Fatalf("no snapshot was made\n%s", r.out.String())
	}
	put(t, limit, number(t, usage)+writerMiB<<18) // a quarter of what it will write
	f, err := os.OpenFile(o.cmd.Args[1], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], 1)
	if _, err := f.WriteAt(b[:], 16); err != nil {
		t.Fatal(err)
	}
	done := false
	for end := time.Now().Add(patience); !done && time.Now().Before(end); time.Sleep(time.Millisecond) {
		_, err := f.ReadAt(b[:], 24)
		done = err == nil && binary.NativeEndian.Uint64(b[:]) == 1
	}
	if !done {
		t.Error("the program does not get on")
	}
	r.cmd.Process.Signal(unix.SIGCONT)
	if err := r.wait(); err != nil || !r.published() || !strings.Contains(r.out.String(), "the snapshot of its memory was ended from outside") && !strings.Contains(r.out.String(), "the snapshot was ended from outside") {
		t.Errorf("%v\n%s", err, r.out.String())
	}
	why := clean(o.target, r.cmd.Process.Pid, to)
	if why == "" {
		why = o.health()
	}
	if why != "" {
		t.Error(why)
	}
}

// TestProcessLimit: where the program may not have as many processes as a
// snapshot takes, there is none, a note says so, and the program notices nothing:
// neither of the process that could not be made, nor of the one that was.
func TestProcessLimit(t *testing.T) {
	dir, _ := group(t, "pids", "pids.max")
	o := startWriter(t, dir)
	defer o.kill()
	current := filepath.Join(dir, "pids.current")
	for more := range uint64(3) {
		put(t, filepath.Join(dir, "pids.max"), number(t, current)+more)
		to := t.TempDir()
		r := start(t, o.target, to, nil)
		err := r.wait()
		held := strings.Contains(r.out.String(), "stood still") && strings.Contains(r.out.String(), "clone")
		if err != nil || !r.published() || held != (more < 2) {
			t.Errorf("with %d processes more: %v\n%s", more, err, r.out.String())
		}
		why := clean(o.target, r.cmd.Process.Pid, to)
		if why == "" {
			why = o.health()
		}
		if why != "" {
			t.Errorf("with %d processes more: %s", more, why)
		}
	}
}
