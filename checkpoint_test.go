package fermata

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fermata-cr/fermata/internal/inherited"
	"golang.org/x/sys/unix"
)

const lateEnv = "FERMATA_TEST_SEND_AFTER"

// A program that has begun a datagram and sends it only after a while: nobody can
// save it before.
func init() {
	after, err := time.ParseDuration(os.Getenv(lateEnv))
	if err != nil {
		return
	}
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	check(err)
	check(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	check(unix.Listen(fd, 1))
	self, err := unix.Getsockname(fd)
	check(err)
	check(os.WriteFile("port", fmt.Append(nil, self.(*unix.SockaddrInet4).Port), 0o644))
	check(os.Rename("port", "ready"))
	for end := time.Now().Add(after); time.Now().Before(end); {
		unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	client, _, err := unix.Accept(fd)
	check(err)
	check(unix.Close(client))
	time.Sleep(time.Minute)
	os.Exit(0)
}

func TestCheckpointWaitsForWhatPasses(t *testing.T) {
	if err := inherited.Drop(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		after time.Duration
		ok    bool
	}{{"accepted soon", 300 * time.Millisecond, true}, {"never accepted", time.Minute, false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := exec.Command("/proc/self/exe")
			cmd.Dir, cmd.Env = dir, append(os.Environ(), lateEnv+"="+c.after.String())
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Kill()
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				if b, err := os.ReadFile(filepath.Join(dir, "ready")); err == nil {
					// What is not accepted yet comes from outside the tree.
					c, err := net.Dial("tcp", "127.0.0.1:"+string(b))
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					break
				}
				if time.Now().After(end) {
					t.Fatal("the program is not ready")
				}
			}
			began := time.Now()
			to := filepath.Join(dir, "saved")
			_, err := Checkpoint(context.Background(), cmd.Process.Pid, CheckpointOptions{To: to})
			took := time.Since(began)
			var refused *RefusedError
			switch {
			case c.ok && err != nil:
				t.Errorf("after %v: %v", took, err)
			case !c.ok && !errors.As(err, &refused):
				t.Errorf("after %v: %v, not a refusal", took, err)
			case !c.ok && (took < patience/2 || took > 5*patience):
				t.Errorf("refused after %v", took)
			}
			if _, serr := os.Stat(to); (serr == nil) != c.ok {
				t.Errorf("the checkpoint's directory: %v", serr)
			}
		})
	}
}
