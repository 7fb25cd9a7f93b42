package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	library "github.com/fermata-cr/fermata"
)

// TestDiskFull lets the destination be full at any point.
func TestDiskFull(t *testing.T) {
	g := startTarget(t)
	defer func() { g.kill() }()
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	whole := 0
	var sizes []int
	for kib := 4; kib <= 4096; kib = kib*3/2 + 4 {
		sizes = append(sizes, kib)
	}
	if testing.Short() {
		sizes = []int{4, 64}
	}
	for i, kib := range sizes {
		if err := unix.Mount("fermata-test", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kib)); err != nil {
			t.Skipf("mount: %v", err)
		}
		mode := modes[i%2]
		r := start(t, g, dir, nil, mode...)
		err := r.wait()
		switch {
		case err == nil:
			whole++
		case !strings.Contains(r.out.String(), "no space left on device"):
			t.Errorf("%d KiB: %v\n%s", kib, err, r.out.String())
		}
		if err != nil && r.published() {
			t.Errorf("%d KiB: failed, and published", kib)
		}
		if why := g.after(r, dir); why != "" {
			t.Errorf("%d KiB %v: %s", kib, mode, why)
		}
		left, _ := os.ReadDir(dir)
		if err != nil && len(left) > 0 {
			t.Errorf("%d KiB: left %v", kib, left)
		}
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatalf("something holds the file system: %v", err)
		}
	}
	if !testing.Short() && (whole == 0 || whole == len(sizes)) {
		t.Errorf("%d of %d were whole", whole, len(sizes))
	}
	t.Logf("%d sizes, %d of them enough", len(sizes), whole)
}

// TestFileSizeLimit: no file may grow beyond a limit of fermata's own.
func TestFileSizeLimit(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	for _, limit := range []int{0, 1, 8, 64} {
		to := filepath.Join(dir, "cp")
		cmd := exec.Command("sh", "-c", fmt.Sprintf("ulimit -f %d; exec %s checkpoint --kill --to %s %d", limit, fermata, to, g.pid()))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := launch(cmd); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		ours.Delete(cmd.Process.Pid)
		if err == nil || !strings.Contains(out.String(), "file too large") {
			t.Errorf("limit %d: %v\n%s", limit, err, out.String())
		}
		r := &run{cmd: cmd, dir: to}
		if why := g.after(r, dir); why != "" {
			t.Errorf("limit %d: %s", limit, why)
			g.kill()
			g = startTarget(t)
		}
		os.RemoveAll(to)
	}
}

// TestInterrupted sends the signals that ask fermata to give up at random
// instants.
func TestInterrupted(t *testing.T) {
	dir := t.TempDir()
	g := startTarget(t)
	defer func() { g.kill() }()
	signals := []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP}
	ended := 0
	n := count(60)
	for i := range n {
		r := start(t, g, dir, nil, modes[i%2]...)
		time.Sleep(time.Duration(rand.Int64N(int64(25 * time.Millisecond))))
		r.cmd.Process.Signal(signals[i%3])
		if err := r.wait(); err != nil {
			ended++
			if !endedBy(r.cmd.ProcessState, signals[i%3]) {
				t.Errorf("%v: %v\n%s", signals[i%3], r.cmd.ProcessState, r.out.String())
			}
			if r.published() {
				t.Errorf("%v: failed, and published", err)
			}
		}
		if why := g.after(r, dir); why != "" {
			t.Errorf("%v: %s\n%s", signals[i%3], why, r.out.String())
			g.kill()
			g = startTarget(t)
		}
		os.RemoveAll(r.dir)
	}
	t.Logf("%d of %d were interrupted", ended, n)
}

// endedBy tells whether fermata says that it gave up because of a signal, or was
// ended by it, before it has begun: to a shell that is the same.
func endedBy(s *os.ProcessState, sig unix.Signal) bool {
	ws := s.Sys().(syscall.WaitStatus)
	return ws.Exited() && ws.ExitStatus() == 128+int(sig) || ws.Signaled() && ws.Signal() == sig
}

// TestCancelled: the library, with a context that ends at any instant. The
// program goes on although the process that held it does.
func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	g := startUnawaited(t)
	defer func() { g.kill() }()
	n := count(60)
	cancelled := 0
	for i := range n {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(15*time.Millisecond))))
		to := filepath.Join(dir, "cp"+strconv.Itoa(i))
		_, err := library.Checkpoint(ctx, g.pid(), library.CheckpointOptions{To: to})
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			cancelled++
			if _, err := os.Stat(to); err == nil {
				t.Error("cancelled, and published")
			}
		case err != nil:
			t.Fatal(err)
		}
		if why := clean(g, os.Getpid(), dir); why != "" {
			t.Errorf("left behind: %s", why)
		}
		if why := g.health(); why != "" {
			t.Errorf("cancelled: %s", why)
			g.kill()
			g = startUnawaited(t)
		}
		os.RemoveAll(to)
	}
	t.Logf("%d of %d were cancelled", cancelled, n)
}
