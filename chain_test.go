package fermata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/inherited"
	"github.com/fermata-cr/fermata/internal/pagestore"
)

// changing starts a program that has 24 MiB of memory, changes a little of it
// with each line of its input file, and writes the number of changes made.
func changing(t *testing.T) (at string, pid int, step func() string, end func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to choose pids")
	}
	if err := inherited.Drop(); err != nil {
		t.Fatal(err)
	}
	at = t.TempDir()
	cmd := exec.Command("/usr/bin/perl", "-e", `
		$m = join "", map { pack "N*", map { $_ * 2654435761 & 0xffffffff } $_ * 1024 .. $_ * 1024 + 1023 } 0 .. 6143;
		$n = 0;
		for (;;) {
			while (! -e "step$n") { select undef, undef, undef, 0.002 }
			substr($m, ($n * 7919 % 6143) * 4096 + 17, 4) = pack "N", $n;
			$n++;
			open F, ">", "sum.tmp"; print F $n, " ", unpack("%32C*", $m), " ", length $m; close F;
			rename "sum.tmp", "sum$n";
		}`)
	cmd.Dir = at
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	n := 0
	step = func() string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(at, fmt.Sprint("step", n)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		n++
		for late := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if b, err := os.ReadFile(filepath.Join(at, fmt.Sprint("sum", n))); err == nil {
				return string(b)
			}
			if time.Now().After(late) {
				t.Fatalf("step %d: the program does nothing", n)
			}
		}
	}
	return at, cmd.Process.Pid, step, end
}

// TestChain makes a chain of checkpoints of a program that changes little, and
// restores each of them when the others have gone, the last one squashed.
func TestChain(t *testing.T) {
	ctx := context.Background()
	at, pid, step, end := changing(t)
	name := func(i int) string { return filepath.Join(at, fmt.Sprint("c", i)) }
	step()
	var results []*CheckpointResult
	const n = 4
	var sums [n]string
	for i := range n {
		// Its files are of every kind.
		o := CheckpointOptions{To: name(i), Compression: []Compression{{Codec: pagestore.Zstd, Level: 1}, {Codec: pagestore.S2}, {}, {Codec: pagestore.S2}}[i]}
		if i > 0 {
			o.Parent = name(i - 1)
		}
		r, err := Checkpoint(ctx, pid, o)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
		// What the program does next, from here, is always the same.
		sums[i] = step()
	}
	end()
	if full := results[0].Written; full < 16<<20 {
		t.Fatalf("only %d bytes in the first one", full)
	}
	for i, r := range results[1:] {
		if r.Written > results[0].Written/4 || len(r.Notes) > 0 {
			t.Errorf("checkpoint %d wrote %d bytes, the first one %d; notes: %q", i+1, r.Written, results[0].Written, r.Notes)
		}
	}
	in, err := Inspect(name(2))
	if err != nil || in.Parent != name(1) || in.Links != 2 || in.Shared == 0 || len(in.PageFiles) < 3 || in.PageFiles[0].Of == "" || in.PageFiles[len(in.PageFiles)-1].Of != "" {
		t.Errorf("%+v, %v", in, err)
	}
	// The last one, into another directory and in its place.
	sq, err := Squash(ctx, name(3), SquashOptions{To: filepath.Join(at, "apart")})
	if err != nil || sq.Links != 3 || sq.Written < results[0].Written*9/10 || sq.Written > sq.Before*101/100 {
		t.Fatalf("%+v, %v", sq, err)
	}
	if _, err := Squash(ctx, name(3), SquashOptions{To: filepath.Join(at, "apart")}); !errors.Is(err, ErrUsage) {
		t.Errorf("squashed onto another: %v", err)
	}
	if _, err := Squash(ctx, name(3), SquashOptions{}); err != nil {
		t.Fatal(err)
	}
	if in, err := Inspect(name(3)); err != nil || in.Parent != "" || in.Links != 0 || in.Shared != 0 {
		t.Errorf("squashed: %+v, %v", in, err)
	}
	restored := func(dir string, i int) {
		t.Helper()
		// Everything it will do is to be done again.
		for k := i + 2; ; k++ {
			if os.Remove(filepath.Join(at, fmt.Sprint("sum", k))) != nil {
				break
			}
		}
		for k := i + 1; ; k++ {
			if os.Remove(filepath.Join(at, fmt.Sprint("step", k))) != nil {
				break
			}
		}
		if v, err := Verify(ctx, dir); err != nil || !v.Restorable() {
			t.Fatalf("%s: %+v, %v", dir, v, err)
		}
		if _, err := Restore(ctx, dir, RestoreOptions{Lazy: i%2 == 1}); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(at, fmt.Sprint("step", i+1)), nil, 0o600)
		var got string
		for late := time.Now().Add(30 * time.Second); got == "" && time.Now().Before(late); time.Sleep(time.Millisecond) {
			b, _ := os.ReadFile(filepath.Join(at, fmt.Sprint("sum", i+2)))
			got = string(b)
		}
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
		if got != sums[i] {
			t.Errorf("%s: %q, in the first life %q", dir, got, sums[i])
		}
	}
	restored(filepath.Join(at, "apart"), 3)
	for i := n - 1; i >= 0; i-- {
		// Those that it builds upon go first.
		for k := range i {
			if err := os.Rename(name(k), name(k)+".away"); err != nil {
				t.Fatal(err)
			}
		}
		restored(name(i), i)
		for k := range i {
			if err := os.Rename(name(k)+".away", name(k)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.RemoveAll(name(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChainRefused: a parent that cannot be built upon is named, nothing is left
// and the program goes on.
func TestChainRefused(t *testing.T) {
	ctx := context.Background()
	at, pid, step, _ := changing(t)
	step()
	parent := filepath.Join(at, "parent")
	if _, err := Checkpoint(ctx, pid, CheckpointOptions{To: parent}); err != nil {
		t.Fatal(err)
	}
	other := exec.Command("/bin/sleep", "100")
	other.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	alter := func(file string, f func([]byte) []byte) func() {
		path := filepath.Join(parent, file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f([]byte(string(b))), 0o600); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	half := func(b []byte) []byte { return b[:len(b)/2] }
	for name, c := range map[string]struct {
		harm func() (undo func())
		want error
		says string
		pid  int
	}{
		"metadata altered": {func() func() { return alter("metadata", flip) }, ErrDamaged, "checksum", pid},
		"metadata cut off": {func() func() { return alter("metadata", half) }, ErrDamaged, "truncated", pid},
		"pages altered":    {func() func() { return alter("pages-0", flip) }, ErrDamaged, "checksum", pid},
		"pages cut off":    {func() func() { return alter("pages-0", half) }, ErrDamaged, "bytes where", pid},
		"pages away": {func() func() {
			os.Rename(parent+"/pages-0", parent+"/x")
			return func() { os.Rename(parent+"/x", parent+"/pages-0") }
		}, ErrDamaged, "pages-0", pid},
		"removed":            {func() func() { os.Rename(parent, parent+"x"); return func() { os.Rename(parent+"x", parent) } }, ErrNotFound, "no checkpoint", pid},
		"of another program": {func() func() { return func() {} }, ErrUsage, "another program", other.Process.Pid},
	} {
		undo := c.harm()
		to := filepath.Join(at, "child")
		_, err := Checkpoint(ctx, c.pid, CheckpointOptions{To: to, Parent: parent})
		undo()
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "parent") && c.want != ErrUsage {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := filepath.Glob(to + "*"); len(left) > 0 {
			t.Errorf("%s: left behind: %q", name, left)
		}
		if c.pid == pid {
			step()
		}
	}
	// On another file system the files are copied, and it is said.
	if shm, err := os.MkdirTemp("/dev/shm", "chain"); err == nil {
		defer os.RemoveAll(shm)
		r, err := Checkpoint(ctx, pid, CheckpointOptions{To: shm + "/child", Parent: parent})
		if err != nil || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "copied") {
			t.Errorf("%+v, %v", r, err)
		}
		if v, err := Verify(ctx, shm+"/child"); err != nil || !v.Whole() {
			t.Errorf("%+v, %v", v, err)
		}
	}
}

// TestChainDiskFull: the disk is full in the middle of a chain: the error says so,
// nothing is left, the parent is whole and the program goes on.
func TestChainDiskFull(t *testing.T) {
	ctx := context.Background()
	at, pid, step, _ := changing(t)
	step()
	disk := filepath.Join(at, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", disk, "tmpfs", 0, "size=160m,mode=700"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	parent, child := filepath.Join(disk, "parent"), filepath.Join(disk, "child")
	if _, err := Checkpoint(ctx, pid, CheckpointOptions{To: parent}); err != nil {
		t.Fatal(err)
	}
	step()
	// All that is free but some pages.
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, (int64(st.Bavail)-6)*st.Bsize), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Compression{{}, {Codec: pagestore.S2}} {
		_, err := Checkpoint(ctx, pid, CheckpointOptions{To: child, Parent: parent, Compression: c})
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%v", err)
		}
		if left, _ := filepath.Glob(child + "*"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
		step()
	}
	if _, err := Squash(ctx, parent, SquashOptions{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("squashed without room: %v", err)
	}
	if v, err := Verify(ctx, parent); err != nil || !v.Whole() {
		t.Errorf("%+v, %v", v, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if _, err := Checkpoint(ctx, pid, CheckpointOptions{To: child, Parent: parent}); err != nil {
		t.Error(err)
	}
	if v, err := Verify(ctx, child); err != nil || !v.Whole() {
		t.Errorf("%+v, %v", v, err)
	}
}
