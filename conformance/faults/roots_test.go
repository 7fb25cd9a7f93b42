package faults

import (
	"errors"
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

// TestRootEnds: one of several roots ends between the moment it was found and
// the freeze. One that was asked for by its pid is missed; one that was found in
// a session is left out, and what it leaves to others is not.
func TestRootEnds(t *testing.T) {
	// begin starts a program whose end nobody takes before the test does.
	begin := func(args ...string) *exec.Cmd {
		c := exec.Command(args[0], args[1:]...)
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := launch(c); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			unix.Kill(-c.Process.Pid, unix.SIGKILL)
			c.Wait()
			ours.Delete(c.Process.Pid)
		})
		return c
	}
	// during runs fermata, and ends c when it is about to freeze.
	during := func(c *exec.Cmd, args ...string) (string, int, string) {
		to := filepath.Join(t.TempDir(), "cp")
		cmd := exec.Command(fermata, append([]string{"checkpoint", "--json", "--to", to}, args...)...)
		cmd.Env = append(os.Environ(), "FERMATA_FAULT=stop:guarded:1")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := launch(cmd); err != nil {
			t.Fatal(err)
		}
		key := strconv.Itoa(cmd.Process.Pid)
		for end := time.Now().Add(10 * time.Second); !strings.HasPrefix(field(key+"/"+key, "State"), "T"); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it does not get there: %s", out.String())
			}
		}
		c.Process.Signal(unix.SIGKILL)
		key = strconv.Itoa(c.Process.Pid)
		for !strings.HasPrefix(field(key+"/"+key, "State"), "Z") {
			time.Sleep(time.Millisecond)
		}
		cmd.Process.Signal(unix.SIGCONT)
		err := cmd.Wait()
		ours.Delete(cmd.Process.Pid)
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		return out.String(), code, to
	}

	a, b := begin("sleep", "100"), begin("sleep", "100")
	pid := func(c *exec.Cmd) string { return strconv.Itoa(c.Process.Pid) }
	out, code, to := during(b, pid(a), pid(b))
	if code != 4 || !strings.Contains(out, "pid "+pid(b)+" ended before") {
		t.Errorf("exit code %d: %s", code, out)
	}
	if _, err := os.Stat(to); err == nil {
		t.Error("there is a checkpoint")
	}

	// The same before fermata looks: its parent is named.
	msg, err := exec.Command(fermata, "checkpoint", "--to", to, pid(a), pid(b)).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 4 || !strings.Contains(string(msg), "its parent, pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("%v: %s", err, msg)
	}

	// The leader of a session ends; its two children become somebody else's.
	s := begin("sh", "-c", "sleep 100 & sleep 101; :")
	var kids []string
	for end := time.Now().Add(10 * time.Second); len(kids) < 2; time.Sleep(time.Millisecond) {
		k, _ := os.ReadFile("/proc/" + pid(s) + "/task/" + pid(s) + "/children")
		if kids = strings.Fields(string(k)); time.Now().After(end) {
			t.Fatal("no children")
		}
	}
	out, code, _ = during(s, "--session", pid(s))
	if code != 0 || !strings.Contains(out, `"pids":[`+kids[0]+","+kids[1]+"]") {
		t.Errorf("exit code %d, want pids %v: %s", code, kids, out)
	}
}
