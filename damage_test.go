package fermata

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/inherited"
	"github.com/fermata-cr/fermata/internal/pagestore"
)

// smallCheckpoint saves a program with memory of its own and the content of a
// removed file, and ends it. It gives the directory, the files in it and the pid.
func smallCheckpoint(t *testing.T) (dir string, files []string, pid int) {
	t.Helper()
	return smallChain(t, CheckpointOptions{})
}

// smallChain makes checkpoints of that program, one for each set of options, each
// upon the one before, and keeps the last.
func smallChain(t *testing.T, how ...CheckpointOptions) (dir string, files []string, pid int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to choose pids")
	}
	if err := inherited.Drop(); err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	cmd := exec.Command("/usr/bin/perl", "-e", `open F, "+>", "gone"; syswrite F, "x" x 5000; unlink "gone"; open D, ">", "data"; syswrite D, "saved"; open R, ">", "ready"; sleep 100`)
	cmd.Dir = at
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(end)
	for late := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(at, "ready")); err == nil {
			break
		}
		if time.Now().After(late) {
			t.Fatal("the program is not ready")
		}
	}
	for i, o := range how {
		o.Parent, o.To, o.SaveFiles = dir, filepath.Join(at, fmt.Sprint("saved", i)), true
		if _, err := Checkpoint(context.Background(), cmd.Process.Pid, o); err != nil {
			t.Fatal(err)
		}
		if dir != "" {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		dir = o.To
	}
	end() // only now: to wait for a child of its own, this process takes its stops too
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) < 3 {
		t.Fatalf("the checkpoint has %q (%v)", files, err)
	}
	if r, err := Verify(context.Background(), dir); err != nil || !r.Restorable() {
		t.Fatalf("before anything is damaged: %+v %v", r, err)
	}
	return dir, files, cmd.Process.Pid
}

// damaged wants a checkpoint to be found damaged, by Verify and by Restore, and
// quickly, and nothing to be left.
func damaged(t *testing.T, dir string, pid int, how string, a ...any) {
	t.Helper()
	began := time.Now()
	r, err := Verify(context.Background(), dir)
	if err != nil && !errors.Is(err, ErrDamaged) || err == nil && r.Whole() {
		t.Errorf(how+": verify: %+v %v", append(a, r, err)...)
	}
	_, err = Restore(context.Background(), dir, RestoreOptions{})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf(how+": restore: %v", append(a, err)...)
	}
	if err == nil {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
	}
	if unix.Kill(pid, 0) == nil {
		t.Errorf(how+": pid %d is there", append(a, pid)...)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf(how+": it took %v", append(a, d)...)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// TestTruncated: a file of a checkpoint that ends at any byte.
func TestTruncated(t *testing.T) {
	dir, files, pid := smallCheckpoint(t)
	for _, f := range files {
		whole, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		// Every byte of small files, and some of large ones.
		step := 1
		if len(whole) > 64<<10 {
			step = len(whole)/2000 | 1
		}
		if testing.Short() {
			step *= 50
		}
		for n := len(whole) - 1; n >= 0; n -= step {
			if err := os.Truncate(f, int64(n)); err != nil {
				t.Fatal(err)
			}
			damaged(t, dir, pid, "%s of %d bytes cut off at %d", f, len(whole), n)
		}
		if err := os.WriteFile(f, append(whole, 0), 0o600); err != nil {
			t.Fatal(err)
		}
		damaged(t, dir, pid, "%s with a byte more", f)
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
		damaged(t, dir, pid, "without %s", f)
		// What must not be waited for.
		if err := unix.Mkfifo(f, 0o600); err != nil {
			t.Fatal(err)
		}
		damaged(t, dir, pid, "%s is a pipe", f)
		os.Remove(f)
		if err := os.Mkdir(f, 0o700); err != nil {
			t.Fatal(err)
		}
		damaged(t, dir, pid, "%s is a directory", f)
		os.Remove(f)
		if err := os.WriteFile(f, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := Verify(context.Background(), dir); err != nil || !r.Restorable() {
		t.Errorf("put back: %+v %v", r, err)
	}
}

// TestAltered: any one bit of a checkpoint is another.
func TestAltered(t *testing.T) {
	dir, files, pid := smallCheckpoint(t)
	altered(t, dir, files, pid)
}

// TestAlteredChain: the same of a checkpoint that builds upon others, with files
// of every codec.
func TestAlteredChain(t *testing.T) {
	var how [3]CheckpointOptions
	how[0].Compression = Compression{Codec: pagestore.Zstd, Level: 1}
	how[1].Compression = Compression{Codec: pagestore.S2}
	dir, files, pid := smallChain(t, how[:]...)
	pages := 0
	for _, f := range files {
		if strings.HasPrefix(filepath.Base(f), "pages-") {
			pages++
		}
	}
	if pages < 2 {
		t.Errorf("only %d files of pages: %q", pages, files)
	}
	altered(t, dir, files, pid)
}

// altered alters a bit of each file in many places.
func altered(t *testing.T, dir string, files []string, pid int) {
	t.Helper()
	for _, f := range files {
		whole, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		h, err := os.OpenFile(f, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		turns := 300
		if testing.Short() {
			turns = 10
		}
		for i := range min(len(whole), turns) {
			at := i * len(whole) / min(len(whole), turns)
			for _, b := range []byte{whole[at] ^ 1<<(i%8), whole[at]} {
				if _, err := h.WriteAt([]byte{b}, int64(at)); err != nil {
					t.Fatal(err)
				}
				if b != whole[at] {
					damaged(t, dir, pid, "%s with another byte at %d", f, at)
				}
			}
		}
	}
	if r, err := Verify(context.Background(), dir); err != nil || !r.Restorable() {
		t.Errorf("put back: %+v %v", r, err)
	}
}

// TestDamagedContent: saved content that is damaged does not replace a file.
func TestDamagedContent(t *testing.T) {
	dir, files, pid := smallCheckpoint(t)
	data := filepath.Join(filepath.Dir(dir), "data")
	if err := os.WriteFile(data, []byte("newer and longer"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err != nil || string(b) != "saved" {
			continue
		}
		if err := os.WriteFile(f, []byte("sAved"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Restore(context.Background(), dir, RestoreOptions{Files: FilesRollback})
		if b, rerr := os.ReadFile(data); !errors.Is(err, ErrDamaged) || rerr != nil || string(b) != "newer and longer" {
			t.Errorf("the file is now %q (%v); restore: %v", b, rerr, err)
		}
		if unix.Kill(pid, 0) == nil {
			t.Errorf("pid %d is there", pid)
		}
		return
	}
	t.Errorf("no file of %q has the content", files)
}

// TestNewerVersion: a checkpoint of a version that is not known yet is whole and
// yet not read.
func TestNewerVersion(t *testing.T) {
	dir, _, pid := smallCheckpoint(t)
	path := filepath.Join(dir, image.MetaName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b[8:], image.Version+1)
	binary.LittleEndian.PutUint32(b[len(b)-8:], crc32.Checksum(b[:len(b)-8], image.Castagnoli()))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged(t, dir, pid, "a newer version")
	if _, err := Restore(context.Background(), dir, RestoreOptions{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("format version %d", image.Version+1)) {
		t.Errorf("%v", err)
	}
}
