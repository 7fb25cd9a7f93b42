package faults

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asleep waits until a process is in its timed call.
func asleep(pid int) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		call, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		switch nr, _, _ := strings.Cut(string(call), " "); nr {
		case "35", "230", "7", "202":
			return
		}
	}
}

// TestSleepersWakeInTime kills fermata at each step of a checkpoint of a program
// that is nothing but one timed call: it must end when it would have, without
// an error, also when a checkpoint had interrupted it before.
func TestSleepersWakeInTime(t *testing.T) {
	bin := compile(t, "sleeper")
	dir := t.TempDir()
	const sleep = 2000 * time.Millisecond
	calls := []string{"nanosleep", "clock_nanosleep", "poll", "futex"}
	begin := func(call string) (*exec.Cmd, string) {
		out, err := os.CreateTemp(dir, "out")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd := exec.Command(bin, call, strconv.Itoa(int(sleep.Milliseconds())))
		cmd.Stdout = out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := launch(cmd); err != nil {
			t.Fatal(err)
		}
		return cmd, out.Name()
	}
	checkpoint := func(pid int, to, fault string) (string, error) {
		cmd := exec.Command(fermata, "checkpoint", "--to", to, strconv.Itoa(pid))
		cmd.Env = append(os.Environ(), "FERMATA_FAULT="+fault)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := launch(cmd); err != nil {
			t.Error(err)
			return "", err
		}
		err := cmd.Wait()
		ours.Delete(cmd.Process.Pid)
		return out.String(), err
	}
	// The steps of this program's checkpoint.
	p, _ := begin("nanosleep")
	time.Sleep(20 * time.Millisecond)
	file := filepath.Join(dir, "trace")
	if out, err := checkpoint(p.Process.Pid, filepath.Join(dir, "first"), "trace:"+file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.Process.Kill()
	p.Wait()
	ours.Delete(p.Process.Pid)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	seen := map[string]bool{}
	for _, l := range strings.Fields(string(b)) {
		if l[0] != '?' && !seen[l] {
			seen[l] = true
			points = append(points, l)
		}
	}
	if !seen["aide.spawned"] {
		t.Errorf("a single sleeping thread and no aide: %v", points)
	}
	if testing.Short() {
		points = points[:4]
	}
	limit := make(chan bool, 16)
	var wg sync.WaitGroup
	for i, point := range points {
		for again := range 2 {
			limit <- true
			wg.Add(1)
			go func() {
				defer func() { <-limit; wg.Done() }()
				call := calls[(i+again)%len(calls)]
				p, name := begin(call)
				defer ours.Delete(p.Process.Pid)
				asleep(p.Process.Pid)
				since := time.Now()
				time.Sleep(100 * time.Millisecond)
				if again == 1 {
					to := filepath.Join(dir, fmt.Sprintf("before%d", i))
					// On a busy machine it may come too late.
					if out, err := checkpoint(p.Process.Pid, to, ""); err != nil && !strings.Contains(out, "ended before") {
						t.Errorf("%s: %v\n%s", call, err, out)
					}
					time.Sleep(100 * time.Millisecond)
				}
				// Late: what is begun anew shows.
				time.Sleep(800 * time.Millisecond)
				to := filepath.Join(dir, fmt.Sprintf("cp%d-%d", i, again))
				// Begun anew, it would take that much longer.
				anew := time.Since(since)
				out, _ := checkpoint(p.Process.Pid, to, "kill:"+point+":1")
				err := p.Wait()
				said, _ := os.ReadFile(name)
				var r, errno int
				var ms int64
				if _, serr := fmt.Sscan(string(said), &r, &errno, &ms); err != nil || serr != nil || r != 0 {
					t.Errorf("%s, killed at %s, interrupted before %d times: %q %v\n%s", call, point, again, said, err, out)
					return
				}
				if d := time.Duration(ms) * time.Millisecond; d < sleep || d >= sleep+anew {
					t.Errorf("%s, killed at %s, interrupted before %d times: it took %v instead of %v", call, point, again, d, sleep)
				}
			}()
		}
	}
	wg.Wait()
	t.Logf("%d points", len(points))
}
