package fermata

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/inherited"
)

// TestWorkersOnce: what forked workers share is in the checkpoint once, known by
// its frames or, with Dedup, by its content, from a snapshot or not.
func TestWorkersOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to choose pids")
	}
	if err := inherited.Drop(); err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	start := func(workers int) int {
		ready := filepath.Join(at, fmt.Sprint("ready", workers))
		cmd := exec.Command("/usr/bin/perl", "-e", `
			$m = join "", map { pack "N*", map { $_ * 2654435761 & 0xffffffff } $_ * 1024 .. $_ * 1024 + 1023 } 0 .. 6143;
			for (1..$ARGV[0]) { if (!fork) { sleep 1000; exit } }
			open F, ">", $ARGV[1]; close F; sleep 1000`, fmt.Sprint(workers), ready)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			cmd.Wait()
		})
		for late := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(ready); err == nil {
				return cmd.Process.Pid
			}
			if time.Now().After(late) {
				t.Fatal("the program is not ready")
			}
		}
	}
	one, many := start(0), start(10)
	n := 0
	bytes := func(pid int, o CheckpointOptions) int64 {
		n++
		o.To = filepath.Join(at, fmt.Sprint("c", n))
		r, err := Checkpoint(context.Background(), pid, o)
		if err != nil {
			t.Fatal(err)
		}
		return r.Bytes
	}
	alone := bytes(one, CheckpointOptions{})
	if alone < 24<<20 {
		t.Fatalf("only %d bytes", alone)
	}
	var least int64
	for _, o := range []CheckpointOptions{{}, {Snapshot: SnapshotNever}, {Dedup: true}, {Dedup: true, Snapshot: SnapshotNever}} {
		if b := bytes(many, o); b > alone*11/10 {
			t.Errorf("%+v: %d bytes for eleven processes, %d for one", o, b, alone)
		} else {
			least = b
		}
	}
	// This memory is there twice: as it was put together, and in $m.
	if least > alone*3/4 {
		t.Errorf("equal pages: %d bytes of %d", least, alone)
	}
}

// TestDurable: a checkpoint whose files are flushed is whole, plain or packed.
func TestDurable(t *testing.T) {
	ctx := context.Background()
	at, pid, step, _ := changing(t)
	step()
	for i, c := range []Compression{{}, {Codec: 1}} {
		to := filepath.Join(at, fmt.Sprint("c", i))
		if _, err := Checkpoint(ctx, pid, CheckpointOptions{To: to, Durable: true, Compression: c, SaveFiles: true}); err != nil {
			t.Fatal(err)
		}
		if v, err := Verify(ctx, to); err != nil || !v.Whole() {
			t.Errorf("%+v, %v", v, err)
		}
		step()
	}
}
