package tracee

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// patience is how long what must happen may take on a machine that has other
// things to do.
const patience = 30 * time.Second

// subjectDir is where the subject was built, if it was: a process that only
// fuzzes may be ended at any instant, and builds nothing.
var subjectDir string

var subjectBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tracee-")
	if err != nil {
		return "", err
	}
	subjectDir = dir
	bin := filepath.Join(dir, "subject")
	out, err := exec.Command("gcc", "-O1", "-pthread", "-o", bin, "testdata/subject.c").CombinedOutput()
	if err != nil {
		err = errors.New(err.Error() + ": " + string(out))
	}
	return bin, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if subjectDir != "" {
		os.RemoveAll(subjectDir)
	}
	os.Exit(code)
}

// subject starts testdata/subject.c; next waits until it says that it got one
// step further.
func subject(t *testing.T, args ...string) (pid int, next func()) {
	t.Helper()
	bin, err := subjectBinary()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bin, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	next = func() {
		t.Helper()
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			t.Fatalf("subject %v: %v", args, err)
		}
	}
	next()
	return c.Process.Pid, next
}

// tracing runs f on a thread that can be a tracer, and that ends with f.
func tracing(f func()) {
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		f()
	}()
	<-done
}

// family gives every thread below pid as /proc tells.
func family(pid int) map[int]procfs.Stat {
	all := map[int]procfs.Stat{}
	for queue := []int{pid}; len(queue) > 0; queue = queue[1:] {
		tids, _ := procfs.ReadTasks(queue[0])
		for _, tid := range tids {
			if st, err := procfs.ReadStat(tid, 0); err == nil {
				all[tid] = st
			}
			kids, _ := procfs.ReadChildren(queue[0], tid)
			queue = append(queue, kids...)
		}
	}
	return all
}

// TestNobodyEscapes freezes a tree that makes threads and processes all the
// time: all of them stand still, and go on afterwards.
func TestNobodyEscapes(t *testing.T) {
	pid, _ := subject(t, "churn")
	most := 0
	for range 40 {
		var frozen, later map[int]procfs.Stat
		tracing(func() {
			tr, err := Freeze([]int{pid}, FreezeOptions{Exclude: Self()})
			if err != nil {
				t.Error(err)
				return
			}
			frozen = family(pid)
			time.Sleep(5 * time.Millisecond)
			later = family(pid)
			for tid, st := range frozen {
				if st.State == 'Z' || st.State == 'X' {
					continue // on its way out for good
				}
				if st.State != 't' {
					t.Errorf("thread %d is in state %c", tid, st.State)
				}
				if tr.seen[tid] == nil {
					t.Errorf("thread %d is not known", tid)
				}
			}
			for _, p := range tr.Processes {
				for _, th := range p.Threads {
					if _, ok := frozen[th.TID]; !ok {
						t.Errorf("thread %d of pid %d is not there", th.TID, p.PID)
					}
				}
			}
			if err := tr.Thaw(); err != nil {
				t.Error(err)
			}
		})
		for tid := range later {
			if _, ok := frozen[tid]; !ok {
				t.Errorf("thread %d was born in a frozen tree", tid)
			}
		}
		for tid, st := range frozen {
			if _, ok := later[tid]; !ok && st.State == 't' {
				t.Errorf("thread %d has gone", tid)
			}
		}
		if most = max(most, len(frozen)); t.Failed() {
			return
		}
		// It goes on: somebody is born.
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			born := false
			for tid := range family(pid) {
				_, known := frozen[tid]
				born = born || !known
			}
			if born {
				break
			}
			if time.Now().After(end) {
				t.Fatal("it does not go on")
			}
		}
	}
	if most < 8 {
		t.Errorf("never more than %d threads", most)
	}
	t.Logf("up to %d threads", most)
}

// TestFreezeStopped: a job-control stop is seen, and lasts.
func TestFreezeStopped(t *testing.T) {
	pid, _ := subject(t, "hold")
	unix.Kill(pid, unix.SIGSTOP)
	stopped(t, pid)
	for range 20 {
		tracing(func() {
			tr, err := Freeze([]int{pid}, FreezeOptions{Exclude: Self()})
			if err != nil {
				t.Error(err)
				return
			}
			defer tr.Thaw()
			for _, th := range tr.Process(pid).Threads {
				if th.GroupStop != int(unix.SIGSTOP) {
					t.Errorf("thread %d: stopped by %d", th.TID, th.GroupStop)
				}
			}
		})
		stopped(t, pid)
	}
	unix.Kill(pid, unix.SIGCONT)
	awaitState(t, pid, 'R')
}

// stopped waits until all threads of a process are in a job-control stop, and
// sees that they stay there.
func stopped(t *testing.T, pid int) {
	t.Helper()
	awaitState(t, pid, 'T')
	for tid, st := range family(pid) {
		for end := time.Now().Add(patience); st.State != 'T'; time.Sleep(time.Millisecond) {
			if s, err := procfs.ReadStat(tid, 0); err == nil {
				st = s
			}
			if time.Now().After(end) {
				t.Fatalf("thread %d: state %c", tid, st.State)
			}
		}
	}
	time.Sleep(2 * time.Millisecond)
	for tid, st := range family(pid) {
		if st.State != 'T' {
			t.Fatalf("thread %d does not stay stopped: state %c", tid, st.State)
		}
	}
}

func awaitState(t *testing.T, tid int, want byte) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		st, err := procfs.ReadStat(tid, 0)
		if err == nil && st.State == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("thread %d: %+v %v, want state %c", tid, st, err, want)
		}
	}
}

// TestFreezeVfork: a parent in vfork cannot stop before its child has gone,
// which is itself one of those that are to stop.
func TestFreezeVfork(t *testing.T) {
	pid, next := subject(t, "vfork", "300")
	awaitState(t, pid, 'D')
	tracing(func() {
		tr, err := Freeze([]int{pid}, FreezeOptions{Exclude: Self()})
		if err != nil {
			t.Error(err)
			return
		}
		for tid, st := range family(pid) {
			if st.State != 't' && st.State != 'Z' {
				t.Errorf("thread %d: state %c", tid, st.State)
			}
		}
		if err := tr.Thaw(); err != nil {
			t.Error(err)
		}
	})
	next() // its child has ended well
	awaitState(t, pid, 'S')
}

// TestFreezeWaits: who cannot be interrupted for a while is waited for.
func TestFreezeWaits(t *testing.T) {
	pid, next := subject(t, "vfork", "300")
	awaitState(t, pid, 'D')
	tracing(func() {
		tr, err := Freeze([]int{pid}, FreezeOptions{Exclude: Self(), Alone: true})
		if err != nil {
			t.Error(err)
			return
		}
		if n := len(tr.Process(pid).Threads); n != 2 {
			t.Errorf("%d threads", n)
		}
		if err := tr.Thaw(); err != nil {
			t.Error(err)
		}
	})
	next()
	awaitState(t, pid, 'S')
}

// TestFreezeGivesUp: when one cannot be stopped in time, everybody goes on, also
// that one, later.
func TestFreezeGivesUp(t *testing.T) {
	pid, next := subject(t, "vfork", "1500")
	awaitState(t, pid, 'D')
	tracing(func() {
		began := time.Now()
		_, err := Freeze([]int{pid}, FreezeOptions{Exclude: Self(), Alone: true, Timeout: 100 * time.Millisecond})
		if !errors.Is(err, fault.ErrTimeout) {
			t.Errorf("%v", err)
		}
		if d := time.Since(began); d > time.Second {
			t.Logf("it took %v", d)
		}
	})
	for tid := range family(pid) {
		st, err := procfs.ReadStatus(pid, tid)
		if err == nil && st.TracerPid != 0 && tid != pid {
			t.Errorf("thread %d is still traced", tid)
		}
		if tid != pid && err == nil && st.State != 'R' && st.State != 'S' {
			t.Errorf("thread %d: state %c", tid, st.State)
		}
	}
	next()
	awaitState(t, pid, 'S')
	if st, err := procfs.ReadStatus(pid, pid); err != nil || st.TracerPid != 0 {
		t.Errorf("%+v %v", st, err)
	}
}

// TestFreezeZombie: a child that nobody has waited for has no thread to stop.
func TestFreezeZombie(t *testing.T) {
	c := exec.Command("sh", "-c", "true & exec sleep 1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	pid := c.Process.Pid
	zombie := 0
	for end := time.Now().Add(patience); zombie == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		for tid, st := range family(pid) {
			if st.State == 'Z' {
				zombie = tid
			}
		}
	}
	tracing(func() {
		tr, err := Freeze([]int{pid}, FreezeOptions{Exclude: Self()})
		if err != nil {
			t.Error(err)
			return
		}
		defer tr.Thaw()
		if p := tr.Process(zombie); zombie == 0 || p == nil || !p.Zombie || len(p.Threads) != 0 || len(tr.Processes) != 2 {
			t.Errorf("zombie %d: %+v", zombie, p)
		}
	})
}

// TestSessionKeepsState lets executors into all threads and out again: what a
// tracer sees of each afterwards is what it saw before.
func TestSessionKeepsState(t *testing.T) {
	pid, _ := subject(t, "hold")
	tids, err := procfs.ReadTasks(pid)
	if err != nil || len(tids) != 2 {
		t.Fatalf("%v %v", tids, err)
	}
	// Pending: for the process, and for each thread.
	for _, sig := range []unix.Signal{unix.SIGUSR2, 37} {
		unix.Kill(pid, sig)
	}
	for _, tid := range tids {
		unix.Tgkill(pid, tid, unix.SIGUSR2)
	}
	for i := range 50 {
		tracing(func() {
			session(t, pid, i, func(g *Guest, tr *Tree) {
				p := tr.Process(pid)
				if len(p.Pending) == 0 {
					t.Errorf("no signal is pending for the process")
				}
				for _, th := range p.Threads {
					if len(th.Pending) == 0 {
						t.Errorf("no signal is pending for thread %d", th.TID)
					}
					e, err := g.Executor(th)
					if err != nil {
						t.Fatal(err)
					}
					if n, err := e.Call(unix.SYS_GETTID); err != nil || int(n) != th.TID {
						t.Errorf("gettid in %d: %d %v", th.TID, n, err)
					}
				}
				released(t, g, p)
			})
		})
		if t.Failed() {
			return
		}
	}
}

// released releases the guest and compares what is there with what was.
func released(t *testing.T, g *Guest, p *Process) {
	t.Helper()
	if err := g.Release(); err != nil {
		t.Fatal(err)
	}
	pending, err := sys.PeekSignals(p.Threads[0].TID, true)
	if err != nil || !equalSignals(pending, p.Pending) {
		t.Errorf("pending for the process: %v %v, was %v", pending, err, p.Pending)
	}
	for _, th := range p.Threads {
		now := &Thread{TID: th.TID, process: p}
		if err := now.read(p.PID, make([]byte, xstateMax)); err != nil {
			t.Fatal(err)
		}
		if now.Regs != th.Regs {
			t.Errorf("thread %d: registers %+v, were %+v", th.TID, now.Regs, th.Regs)
		}
		if now.Mask != th.Mask {
			t.Errorf("thread %d: mask %#x, was %#x", th.TID, now.Mask, th.Mask)
		}
		if !bytes.Equal(now.Xstate, th.Xstate) {
			t.Errorf("thread %d: extended state % x, was % x", th.TID, now.Xstate, th.Xstate)
		}
		if !equalSignals(now.Pending, th.Pending) {
			t.Errorf("thread %d: pending %v, was %v", th.TID, now.Pending, th.Pending)
		}
		if now.Rseq != th.Rseq {
			t.Errorf("thread %d: rseq %+v, was %+v", th.TID, now.Rseq, th.Rseq)
		}
	}
}

func equalSignals(a, b []sys.Siginfo) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestSleepGoesOn: a sleep that sessions interrupt again and again ends when it
// would have.
func TestSleepGoesOn(t *testing.T) {
	const d = time.Second
	c := exec.Command("sleep", "1")
	began := time.Now()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	pid := c.Process.Pid
	awaitState(t, pid, 'S')
	var last time.Duration // when it was interrupted last
	for time.Since(began) < d*8/10 {
		last = time.Since(began)
		tracing(func() {
			session(t, pid, 0, func(g *Guest, tr *Tree) {
				if e, err := g.Executor(tr.Process(pid).Threads[0]); err != nil {
					t.Error(err)
				} else if _, err := e.Call(unix.SYS_GETPID); err != nil {
					t.Error(err)
				}
			})
		})
		time.Sleep(20 * time.Millisecond)
	}
	err := c.Wait()
	took := time.Since(began)
	if err != nil || took < d || took > d+last {
		t.Errorf("it took %v, interrupted last after %v: %v", took, last, err)
	}
}
