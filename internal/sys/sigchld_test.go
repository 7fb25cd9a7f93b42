package sys

import (
	"os"
	"os/exec"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestQuietStops: stops of children are told by SIGCHLD, not while they are to be
// quiet, and again afterwards; their ends are always.
func TestQuietStops(t *testing.T) {
	told := make(chan os.Signal, 16)
	signal.Notify(told, unix.SIGCHLD)
	defer signal.Stop(told)
	c := exec.Command("/bin/sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() (heard bool) {
		for _, s := range []unix.Signal{unix.SIGSTOP, unix.SIGCONT} {
			if err := unix.Kill(c.Process.Pid, s); err != nil {
				t.Fatal(err)
			}
			// Taken, so that it has come about before one looks.
			var ws unix.WaitStatus
			for {
				if _, err := unix.Wait4(c.Process.Pid, &ws, unix.WUNTRACED|unix.WCONTINUED, nil); err != unix.EINTR {
					break
				}
			}
		}
		// The runtime hands them on in its own time, several as one perhaps.
		for quiet := time.After(100 * time.Millisecond); ; {
			select {
			case <-told:
				heard = true
			case <-quiet:
				return heard
			}
		}
	}
	if !stop() {
		t.Error("a stop was not told at first")
	}
	loud, loud2 := QuietStops(), QuietStops()
	loud()
	loud() // counts once
	if stop() {
		t.Error("a stop was told while one user wants quiet")
	}
	loud2()
	if !stop() {
		t.Error("a stop was not told afterwards")
	}
	defer QuietStops()()
	_ = c.Process.Kill()
	_ = c.Wait()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("the end was not told")
	}
}
