package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// counting is a program that counts in a file as long as it is asked to.
const counting = `
my $n = 0; my $k;
open my $f, ">", "ready";
while (1) {
	if (-e "more") { unlink "more"; $n++; $k = fork; if (!$k) { sleep 1000; } open my $o, ">", "n.tmp"; print $o "$n"; close $o; rename "n.tmp", "n"; }
	select(undef, undef, undef, 0.005);
}`

// TestRollback: a checkpoint in memory touches no repository; the program is set
// back to it again and again, and what it has started since is gone.
func TestRollback(t *testing.T) {
	c := newCommand(t)
	t.Setenv("FERMATA_MEMORY", filepath.Join("/dev/shm", filepath.Base(t.TempDir())+"-"+strconv.Itoa(os.Getpid())))
	t.Cleanup(func() { os.RemoveAll(os.Getenv("FERMATA_MEMORY")) })
	p := target(t, counting)
	pid := strconv.Itoa(p.Process.Pid)
	t.Cleanup(func() {
		unix.Kill(p.Process.Pid, unix.SIGKILL)
		reapAll()
	})
	more := func(want string) {
		t.Helper()
		os.Remove(filepath.Join(p.Dir, "n"))
		touch(t, filepath.Join(p.Dir, "more"))
		await(t, func() bool { return exists(filepath.Join(p.Dir, "n")) })
		b, err := os.ReadFile(filepath.Join(p.Dir, "n"))
		if err != nil || string(b) != want {
			t.Errorf("it counts %q, not %s (%v)", b, want, err)
		}
	}
	more("1")
	if out := c.run(0, "checkpoint", "--to", "mem:one", pid); out != "mem:one\n" {
		t.Errorf("it says %q", out)
	}
	if exists(c.repo) && len(dirNames(t, c.repo)) > 0 {
		t.Errorf("in the repository: %v", dirNames(t, c.repo))
	}
	if out := c.run(0, "list"); !strings.Contains(out, "mem:one ") {
		t.Errorf("list:\n%s", out)
	}
	for range 2 {
		more("2")
		more("3")
		family := append(named(p.Process.Pid, "perl"), p.Process.Pid)
		stop := make(chan struct{})
		reaped := make(chan struct{})
		go func() { // as any parent does
			defer close(reaped)
			for {
				select {
				case <-stop:
					return
				default:
					for _, kid := range family {
						unix.Wait4(kid, nil, unix.WNOHANG, nil)
					}
					unix.Nanosleep(&unix.Timespec{Nsec: 2e6}, nil)
				}
			}
		}()
		out := c.run(0, "rollback", "mem:one")
		close(stop)
		<-reaped
		if out != pid+"\n" {
			t.Errorf("it says %q", out)
		}
		if kids := named(p.Process.Pid, "perl"); len(kids) != 1 {
			t.Errorf("children %v, one at the checkpoint", kids)
		}
	}
	more("2")

	// A damaged checkpoint ends nothing.
	pages := filepath.Join(os.Getenv("FERMATA_MEMORY"), "one", "pages-0")
	b, err := os.ReadFile(pages)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(pages, b, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, _, errs := c.start("rollback", "mem:one")
	if cmd.Wait() == nil || !strings.Contains(errs.String(), "checksum") {
		t.Errorf("it says %q", errs)
	}
	more("3")
	c.run(0, "remove", "mem:one")
	if out := c.run(0, "list"); strings.Contains(out, "mem:one") {
		t.Errorf("list:\n%s", out)
	}
}

func dirNames(t *testing.T, dir string) (out []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		out = append(out, e.Name())
	}
	return out
}
