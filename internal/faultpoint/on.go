//go:build faultpoints

package faultpoint

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Enabled tells whether the program was built for fault tests.
const Enabled = true

// ErrInjected is the error that Err gives.
var ErrInjected = errors.New("injected failure")

var (
	mode, name string
	nth        int64
	delay      time.Duration
	hits       atomic.Int64
	trace      *os.File
)

func init() {
	f := strings.Split(os.Getenv("FERMATA_FAULT"), ":")
	if len(f) < 2 {
		return
	}
	mode, name = f[0], f[1]
	if mode == "trace" {
		t, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_CLOEXEC, 0o600)
		if err != nil {
			panic(err)
		}
		trace = t
		return
	}
	nth = 1
	if len(f) > 2 {
		nth, _ = strconv.ParseInt(f[2], 10, 64)
	}
	if len(f) > 3 {
		us, _ := strconv.Atoi(f[3])
		delay = time.Duration(us) * time.Microsecond
	}
}

// At marks an instant between two effects.
func At(at string) {
	switch mode {
	case "trace":
		fmt.Fprintln(trace, at)
	case "kill", "stop":
		if at != name || hits.Add(1) != nth {
			return
		}
		sig := unix.SIGKILL
		if mode == "stop" {
			sig = unix.SIGSTOP
		}
		if delay == 0 {
			// To this very thread: a SIGSTOP for the process may find another one
			// first, and this one goes on for a while.
			_ = unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
			return
		}
		go func() {
			for end := time.Now().Add(delay); time.Now().Before(end); {
			}
			_ = unix.Kill(os.Getpid(), sig)
		}()
	}
}

// Err marks a place that can be made to fail.
func Err(at string) error {
	if mode == "trace" {
		fmt.Fprintln(trace, "?"+at)
	}
	if mode == "fail" && at == name && hits.Add(1) == nth {
		return fmt.Errorf("%s: %w", at, ErrInjected)
	}
	return nil
}
