package faults

import (
	"bytes"
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
)

// saveScript starts a script for perl, saves and ends it, and gives the
// checkpoint, the program's pid and its directory.
func saveScript(t *testing.T, script string) (to string, pid int, dir string) {
	t.Helper()
	dir = t.TempDir()
	c := exec.Command("/usr/bin/perl", "-e", script+`; open R, ">", "ready"; close R; sleep 1 while 1`)
	c.Dir = dir
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := launch(c); err != nil {
		t.Fatal(err)
	}
	pid = c.Process.Pid
	ended := make(chan struct{})
	go func() { c.Wait(); ours.Delete(pid); close(ended) }()
	defer func() { c.Process.Kill(); <-ended }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(filepath.Join(dir, "ready")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the program is not ready")
		}
	}
	to = filepath.Join(t.TempDir(), "saved")
	if out, err := exec.Command(fermata, "checkpoint", "--kill", "--to", to, strconv.Itoa(pid)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to, pid, dir
}

// remains says what a restore left behind that has not restored, or "".
func remains(pid, controller int, dir string) string {
	reap()
	if unix.Kill(pid, 0) == nil {
		return "the program, or a part of it"
	}
	b, _ := os.ReadFile("/proc/sysvipc/shm")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 5 && f[4] == strconv.Itoa(controller) {
			return "segment: " + strings.TrimSpace(line)
		}
	}
	if k := strangers(); len(k) > 0 {
		return "processes: " + strings.Join(k, ", ")
	}
	d, _ := os.ReadDir(dir)
	for _, e := range d {
		if e.Name() != "ready" {
			return "file: " + e.Name()
		}
	}
	return ""
}

// TestRestoreInterrupted ends a restore at any instant, by the signals that ask
// for it and by SIGKILL: then there is nothing, or the whole program.
func TestRestoreInterrupted(t *testing.T) {
	to, pid, dir := saveScript(t, `$SIG{HUP} = "IGNORE"; open F, "+>", "gone"; syswrite F, "x" x 100000; mkdir "d"; open G, "+>", "d/gone"; unlink "gone", "d/gone"; rmdir "d"`)
	signals := []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGKILL}
	run := func(sig unix.Signal, at time.Duration) (took time.Duration, whole bool) {
		cmd := exec.Command(fermata, "restore", "--detach", to)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := launch(cmd); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if sig != 0 {
			time.Sleep(at)
			cmd.Process.Signal(sig)
		}
		err := cmd.Wait()
		took = time.Since(began)
		ours.Delete(cmd.Process.Pid)
		if err == nil {
			if e := unix.Kill(pid, 0); e != nil {
				t.Errorf("restored, and not there: %v", e)
			}
			whole = true
		} else if !endedBy(cmd.ProcessState, sig) {
			t.Errorf("%v after %v: %v\n%s", sig, at, cmd.ProcessState, out.String())
		}
		if whole || sig == unix.SIGKILL && unix.Kill(pid, 0) == nil && strings.HasPrefix(field(strconv.Itoa(pid)+"/"+strconv.Itoa(pid), "State"), "S") {
			// Killed when its work was done.
			unix.Kill(pid, unix.SIGKILL)
		}
		why := ""
		for end := time.Now().Add(3 * time.Second); ; time.Sleep(2 * time.Millisecond) {
			if why = remains(pid, cmd.Process.Pid, dir); why == "" || time.Now().After(end) {
				break
			}
		}
		if why != "" {
			t.Errorf("%v after %v: left behind: %s\n%s", sig, at, why, out.String())
		}
		return took, whole
	}
	span, whole := run(0, 0)
	if !whole {
		t.Fatal("not restored")
	}
	ended := 0
	n := count(60)
	for i := range n {
		// The machine has other things to do, now more, now less.
		if _, whole := run(signals[i%len(signals)], time.Duration(rand.Int64N(int64(span)))); whole {
			span = max(span*3/4, time.Millisecond)
		} else {
			ended++
			span = span * 17 / 16
		}
	}
	t.Logf("%d of %d were ended within %v", ended, n, span)
}

// TestNamesAfterDeath kills a restore while files and directories that have no
// name any more have one, for a moment.
func TestNamesAfterDeath(t *testing.T) {
	to, pid, dir := saveScript(t, `open F, "+>", "gone"; mkdir "d"; open G, "+>", "d/gone"; opendir D, "d"; unlink "gone", "d/gone"; rmdir "d"; symlink "x", "foreign"`)
	// Somebody else's, in the place of one and in that of none.
	foreign := filepath.Join(dir, "gone")
	if err := os.WriteFile(foreign, []byte("foreign"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []string{"ghost.created:1", "ghost.named:1", "ghost.named:2", "ghost.named:3"} {
		cmd := exec.Command(fermata, "restore", "--detach", to)
		cmd.Env = append(os.Environ(), "FERMATA_FAULT=kill:"+fault)
		if err := launch(cmd); err != nil {
			t.Fatal(err)
		}
		if cmd.Wait() == nil {
			t.Errorf("%s: it ended well", fault)
			unix.Kill(pid, unix.SIGKILL)
		}
		ours.Delete(cmd.Process.Pid)
		var left []string
		for end := time.Now().Add(3 * time.Second); ; time.Sleep(2 * time.Millisecond) {
			reap()
			left, _ = filepath.Glob(filepath.Join(dir, "*"))
			hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
			left = append(left, hidden...)
			if len(left) == 3 && len(strangers()) == 0 || time.Now().After(end) {
				break
			}
		}
		if b, err := os.ReadFile(foreign); len(left) != 3 || err != nil || string(b) != "foreign" {
			t.Errorf("%s: left %q; the file of somebody else is %q (%v)", fault, left, b, err)
		}
	}
}
