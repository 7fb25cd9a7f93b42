package inherited

import (
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDrop: a process that inherited a pipe and an ignored SIGHUP has children
// with neither.
func TestDrop(t *testing.T) {
	const look = "grep SigIgn: /proc/self/status; ls /proc/self/fd"
	sh := func() (string, string) {
		cmd := exec.Command("/bin/sh", "-c", look)
		cmd.Env = os.Environ()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		ign, fds, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(strings.TrimPrefix(ign, "SigIgn:")), " " + strings.Join(strings.Fields(fds), " ") + " "
	}
	if os.Getenv("INHERITED_TEST") == "" {
		var p [2]int
		if err := unix.Pipe2(p[:], 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
		if err := unix.Dup3(p[0], 77, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(77)
		signal.Ignore(syscall.SIGHUP)
		defer signal.Reset(syscall.SIGHUP)
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestDrop$", "-test.v")
		cmd.Env = append(os.Environ(), "INHERITED_TEST=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		return
	}
	ign, fds := sh()
	if !strings.HasSuffix(ign, "1") || !strings.Contains(fds, " 77 ") {
		t.Fatalf("this test inherited nothing: ignored %s, descriptors%s", ign, fds)
	}
	if err := Drop(); err != nil {
		t.Fatal(err)
	}
	ign, fds = sh()
	if strings.Trim(ign, "0") != "" {
		t.Errorf("a child has ignored signals: %s", ign)
	}
	if strings.Contains(fds, " 77 ") {
		t.Errorf("a child has descriptors%s", fds)
	}
}
