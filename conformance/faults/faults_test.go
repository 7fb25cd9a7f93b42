package faults

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var tool = flag.String("tool", "", "the command, built with the tag faultpoints (default: build it)")

var (
	buildDir string
	fermata  string   // the command, with the tag faultpoints
	ours     sync.Map // pids of children that somebody waits for
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Println("fault tests need root")
			return 0
		}
		// The targets must not inherit what this process was started with.
		if err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
			panic(err)
		}
		var err error
		if buildDir, err = os.MkdirTemp("", "fermata-faults-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(buildDir)
		flag.Parse()
		if fermata = *tool; fermata == "" {
			fermata = filepath.Join(buildDir, "fermata")
			if out, err := exec.Command("go", "build", "-tags", "faultpoints", "-o", fermata, "../../cmd/fermata").CombinedOutput(); err != nil {
				fmt.Printf("go build: %v\n%s", err, out)
				return 1
			}
		}
		// What fermata leaves behind must become our child, to be seen ending.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			panic(err)
		}
		go func() {
			// A target that was ended is waited for by fermata, until its pids are
			// free: as soon as can be.
			for ; ; time.Sleep(2 * time.Millisecond) {
				reapOnly("target")
			}
		}()
		return m.Run()
	}())
}

// launching is held while a child is started and not yet known as ours.
var launching sync.Mutex

// launch starts a child that its caller waits for.
func launch(cmd *exec.Cmd) error {
	launching.Lock()
	defer launching.Unlock()
	err := cmd.Start()
	if err == nil {
		ours.Store(cmd.Process.Pid, true)
	}
	return err
}

// run is one run of the command.
type run struct {
	cmd  *exec.Cmd
	out  bytes.Buffer
	dir  string // of the checkpoint
	took time.Duration
}

var serial int

// start runs fermata checkpoint against the target.
func start(t *testing.T, g *target, dir string, env []string, flags ...string) *run {
	t.Helper()
	serial++
	g.look()
	r := &run{dir: filepath.Join(dir, "cp"+strconv.Itoa(serial))}
	r.cmd = exec.Command(fermata, append(append([]string{"checkpoint", "--to", r.dir}, flags...), strconv.Itoa(g.pid()))...)
	r.cmd.Env = append(os.Environ(), env...)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	r.cmd.WaitDelay = 2 * time.Second
	if err := launch(r.cmd); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *run) wait() error {
	err := r.cmd.Wait()
	ours.Delete(r.cmd.Process.Pid)
	return err
}

func (r *run) published() bool {
	_, err := os.Stat(r.dir)
	return err == nil
}

// leftovers says what fermata pid left behind on the machine, or "".
func leftovers(g *target, pid int, dir string) string {
	reap()
	if r := g.regions(); len(r) > 0 {
		return "mapped: " + strings.Join(r, ", ")
	}
	b, _ := os.ReadFile("/proc/sysvipc/shm")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 5 && f[4] == strconv.Itoa(pid) {
			return "segment: " + strings.TrimSpace(line)
		}
	}
	d, _ := os.ReadDir(dir)
	for _, e := range d {
		if strings.Contains(e.Name(), "partial") {
			return "draft: " + e.Name()
		}
	}
	if k := strangers(); len(k) > 0 {
		return fmt.Sprintf("processes: %v", k)
	}
	return ""
}

// clean waits until nothing is left behind.
func clean(g *target, pid int, dir string) string {
	began := time.Now()
	for last := ""; ; time.Sleep(3 * time.Millisecond) {
		why := leftovers(g, pid, dir)
		d := time.Since(began)
		if why == "" && d > 2*time.Second {
			g.t.Logf("left behind for %v: %s", d, last)
		}
		if why == "" || d > patience {
			slowest = max(slowest, d)
			return why
		}
		last = why
	}
}

// slowest is how long it took the guardians at most.
var slowest time.Duration

// strangers gives our children that none of the tests started.
func strangers() (out []string) {
	ts, _ := os.ReadDir("/proc/self/task")
	for _, e := range ts {
		b, _ := os.ReadFile("/proc/self/task/" + e.Name() + "/children")
		for _, f := range strings.Fields(string(b)) {
			pid, _ := strconv.Atoi(f)
			if _, known := ours.Load(pid); known {
				continue
			}
			comm, err := os.ReadFile("/proc/" + f + "/comm")
			if err == nil {
				out = append(out, f+" "+strings.TrimSpace(string(comm)))
			}
		}
	}
	return out
}

// reap takes the status of ended strangers.
func reap() { reapOnly("") }

func reapOnly(comm string) {
	launching.Lock()
	defer launching.Unlock()
	for _, s := range strangers() {
		pid, name, _ := strings.Cut(s, " ")
		if comm == "" || comm == name {
			n, _ := strconv.Atoi(pid)
			unix.Wait4(n, nil, unix.WNOHANG, nil)
		}
	}
}
