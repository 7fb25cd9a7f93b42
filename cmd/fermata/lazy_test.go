package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// remembering is a program with so many MiB of random bytes, which says their
// sum when it is asked to.
func remembering(mib int) string {
	return fmt.Sprintf(`
open my $r, "<", "/dev/urandom"; my $x = ""; my $b;
sysread($r, $b, 1 << 20) == 1 << 20 or die;
close $r;
for (1..%d) { substr($b, 77, 8) = pack "Q", $_; $x .= $b; }
sub tell_sum { my $n = shift; open my $f, ">", "$n.tmp"; print $f unpack("%%64Q*", $x); close $f; rename "$n.tmp", $n; }
tell_sum("ready");
until (-e "end") { select(undef, undef, undef, 0.01); if (-e "ask") { unlink "ask"; tell_sum("answer"); } }
exit 7;`, mib)
}

// saved starts a remembering program and saves and ends it.
func (c *command) saved(mib int) (p *program, ref, sum string) {
	c.t.Helper()
	p = target(c.t, remembering(mib))
	b, err := os.ReadFile(filepath.Join(p.Dir, "ready"))
	if err != nil {
		c.t.Fatal(err)
	}
	ref = filepath.Join(c.t.TempDir(), "saved")
	c.run(0, "checkpoint", "--kill", "--to", ref, strconv.Itoa(p.Process.Pid))
	p.Wait()
	return p, ref, string(b)
}

// ask gives the sum that a program says.
func ask(t *testing.T, p *program) string {
	t.Helper()
	answer := filepath.Join(p.Dir, "answer")
	os.Remove(answer)
	touch(t, filepath.Join(p.Dir, "ask"))
	await(t, func() bool { return exists(answer) })
	b, err := os.ReadFile(answer)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// named gives the processes of a name below another, at any depth.
func named(pid int, name string) (out []int) {
	tids, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, t := range tids {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for _, f := range strings.Fields(string(b)) {
			kid, _ := strconv.Atoi(f)
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", kid))
			if strings.TrimSpace(string(comm)) == name[:min(len(name), 15)] {
				out = append(out, kid)
			}
			out = append(out, named(kid, name)...)
		}
	}
	return out
}

// reapAll takes the ends of processes that became ours.
func reapAll() {
	for {
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && err != unix.EINTR {
			return
		}
	}
}

func awaitNone(t *testing.T, name string) {
	t.Helper()
	await(t, func() bool { reapAll(); return len(named(os.Getpid(), name)) == 0 })
}

// TestLazy: the program has all its memory, and nothing is left beside it.
func TestLazy(t *testing.T) {
	c := newCommand(t)
	p, ref, sum := c.saved(48)
	out := c.run(0, "restore", "--lazy", "--detach", "--json", ref)
	if !strings.Contains(out, `"later"`) {
		t.Errorf("nothing came later: %s", out)
	}
	if got := ask(t, p); got != sum {
		t.Errorf("sum %s, was %s", got, sum)
	}
	awaitNone(t, "fermata-lazy")
	awaitNone(t, "fermata-lazy-watch")
	touch(t, filepath.Join(p.Dir, "end"))
	var st unix.WaitStatus
	if _, err := unix.Wait4(p.Process.Pid, &st, 0, nil); err != nil || st.ExitStatus() != 7 {
		t.Errorf("ended with %#x, %v", st, err)
	}
}

// TestLazyDamaged: what cannot be had ends the program, with the reason; the
// checkpoint, put right, is as good as ever.
func TestLazyDamaged(t *testing.T) {
	c := newCommand(t)
	p, ref, sum := c.saved(48)
	flip := func() {
		f, err := os.OpenFile(filepath.Join(ref, "pages-0"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		if _, err := f.ReadAt(b[:], st.Size()-5000); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if _, err := f.WriteAt(b[:], st.Size()-5000); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	cmd, _, errs := c.start("restore", "--lazy", ref)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+int(unix.SIGKILL) {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(errs.String(), "checksum") {
		t.Errorf("it says %q", errs)
	}
	awaitNone(t, "fermata-lazy")
	awaitNone(t, "fermata-lazy-watch")
	flip()
	c.run(0, "restore", "--lazy", "--detach", ref)
	if got := ask(t, p); got != sum {
		t.Errorf("sum %s, was %s", got, sum)
	}
	awaitNone(t, "fermata-lazy")
}

// caught restores lazily and stops the handler before it has brought all pages.
func (c *command) caught(p *program, ref string) (handler, watch int) {
	c.t.Helper()
	status := fmt.Sprintf("/proc/%d/status", p.Process.Pid)
	for range 20 {
		awaitNone(c.t, "fermata-lazy") // of an attempt before
		cmd, _, errs := c.start("restore", "--lazy", "--detach", ref)
		var h []int
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
			if len(h) == 0 {
				h = named(os.Getpid(), "fermata-lazy")
				continue
			}
			b, err := os.ReadFile(status)
			if err == nil && strings.Contains(string(b), "\nTracerPid:\t0\n") { // it runs
				break
			}
		}
		stopped := len(h) > 0 && unix.Kill(h[0], unix.SIGSTOP) == nil
		if err := cmd.Wait(); err != nil {
			c.t.Fatalf("%v: %s", err, errs)
		}
		if stopped {
			if w := named(h[0], "fermata-lazy-watch"); len(w) == 1 {
				return h[0], w[0]
			}
			unix.Kill(h[0], unix.SIGCONT)
		}
		// Too late: all is there. Once more.
		unix.Kill(p.Process.Pid, unix.SIGKILL)
		await(c.t, func() bool { reapAll(); return unix.Kill(p.Process.Pid, 0) == unix.ESRCH })
	}
	c.t.Fatal("the handler is never seen")
	return 0, 0
}

// TestLazyHandlerKilled: without its handler a program would read zeros; it is
// ended instead.
func TestLazyHandlerKilled(t *testing.T) {
	c := newCommand(t)
	p, ref, sum := c.saved(160)
	handler, _ := c.caught(p, ref)
	if unix.Kill(p.Process.Pid, 0) != nil {
		t.Error("the program is not there")
	}
	unix.Kill(handler, unix.SIGKILL)
	var st unix.WaitStatus
	await(t, func() bool {
		pid, _ := unix.Wait4(p.Process.Pid, &st, unix.WNOHANG, nil)
		return pid == p.Process.Pid
	})
	if st.Signal() != unix.SIGKILL {
		t.Errorf("the program ended with %#x", st)
	}
	awaitNone(t, "fermata-lazy-watch")
	c.run(0, "restore", "--detach", ref)
	if got := ask(t, p); got != sum {
		t.Errorf("sum %s, was %s", got, sum)
	}
}

// TestLazyWatchKilled: the handler finds another watch, and all pages come.
func TestLazyWatchKilled(t *testing.T) {
	c := newCommand(t)
	p, ref, sum := c.saved(160)
	handler, watch := c.caught(p, ref)
	unix.Kill(watch, unix.SIGKILL)
	time.Sleep(10 * time.Millisecond)
	unix.Kill(handler, unix.SIGCONT)
	if got := ask(t, p); got != sum {
		t.Errorf("sum %s, was %s", got, sum)
	}
	awaitNone(t, "fermata-lazy")
	awaitNone(t, "fermata-lazy-watch")
}

// TestLazyDirectoryGone: the checkpoint is removed, and the file system that it
// lay on is unmounted, while pages still come from it. The handler holds its
// files, so that nothing is missing.
func TestLazyDirectoryGone(t *testing.T) {
	c := newCommand(t)
	p := target(t, remembering(160))
	b, err := os.ReadFile(filepath.Join(p.Dir, "ready"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("fermata-test", dir, "tmpfs", 0, "size=512m"); err != nil {
		t.Skipf("no file system can be mounted: %v", err)
	}
	mounted := true
	defer func() {
		if mounted {
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	}()
	ref := filepath.Join(dir, "saved")
	c.run(0, "checkpoint", "--kill", "--to", ref, strconv.Itoa(p.Process.Pid))
	p.Wait()
	handler, _ := c.caught(p, ref)
	if err := unix.Unmount(dir, 0); err != unix.EBUSY {
		t.Errorf("unmounting what is needed: %v", err)
	}
	if err := os.RemoveAll(ref); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	mounted = false
	unix.Kill(handler, unix.SIGCONT)
	if got := ask(t, p); got != string(b) {
		t.Errorf("sum %s, was %s", got, b)
	}
	awaitNone(t, "fermata-lazy")
	awaitNone(t, "fermata-lazy-watch")
}

// TestLazyCutOff: the files of the checkpoint end before all was read from them.
// The program is ended, as where they cannot be read, and never sees a zero.
func TestLazyCutOff(t *testing.T) {
	c := newCommand(t)
	p, ref, _ := c.saved(160)
	handler, _ := c.caught(p, ref)
	files, err := filepath.Glob(filepath.Join(ref, "pages-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if err := os.Truncate(f, 4096); err != nil {
			t.Fatal(err)
		}
	}
	unix.Kill(handler, unix.SIGCONT)
	var st unix.WaitStatus
	await(t, func() bool {
		pid, _ := unix.Wait4(p.Process.Pid, &st, unix.WNOHANG, nil)
		return pid == p.Process.Pid
	})
	if st.Signal() != unix.SIGKILL {
		t.Errorf("the program ended with %#x", st)
	}
	awaitNone(t, "fermata-lazy")
	awaitNone(t, "fermata-lazy-watch")
}
