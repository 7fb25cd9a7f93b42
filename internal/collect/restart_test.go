package collect

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// A thread that was woken for another processor and has not run there yet has
// no time since when it sleeps: it was taken to have slept since the machine
// began, and its call to have timed out.
func TestLastRanOfAWokenThread(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a processor is kept busy in the realtime class")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := sys.SchedAffinity(0)
	if err != nil {
		t.Fatal(err)
	}
	var cpus []int
	for i := range 8 * len(own) {
		if own[i/8]>>(i%8)&1 != 0 {
			cpus = append(cpus, i)
		}
	}
	if len(cpus) < 2 {
		t.Skip("needs two processors")
	}
	to := func(tid, cpu int) {
		t.Helper()
		m := make([]byte, len(own))
		m[cpu/8] = 1 << (cpu % 8)
		if err := sys.SetSchedAffinity(tid, m); err != nil {
			t.Fatal(err)
		}
	}
	here, there := cpus[0], cpus[1]
	to(0, here)
	defer sys.SetSchedAffinity(0, own)

	sleeper := exec.Command("sh", "-c", "echo; read x; read x")
	in, err1 := sleeper.StdinPipe()
	out, err2 := sleeper.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := sleeper.Start(); err != nil { // born here, as this thread is
		t.Fatal(err)
	}
	defer sleeper.Wait()
	defer sleeper.Process.Kill()
	pid := sleeper.Process.Pid
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for sc := (procfs.Syscall{Running: true}); sc.Running || sc.Nr != unix.SYS_READ; sc, err = procfs.ReadSyscall(pid, pid) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if last, ok := (schedClocks{}).lastRan(pid, pid); !ok || time.Since(last) > time.Minute || time.Since(last) < 0 {
		t.Fatalf("of a sleeping thread: %v ago, %v", time.Since(last), ok)
	}

	hog := exec.Command("sh", "-c", "while :; do :; done")
	if err := hog.Start(); err != nil {
		t.Fatal(err)
	}
	defer hog.Wait()
	defer hog.Process.Kill()
	to(hog.Process.Pid, there)
	// Two of equal rank would share: nobody else here is above it.
	if err := sys.SchedSetattr(hog.Process.Pid, &sys.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 50}); err != nil {
		t.Fatal(err)
	}
	clocks := schedClocks{}
	clocks[there] = &schedClock{at: time.Now()}
	to(pid, there)
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		exec, err := procfs.ReadSchedExecStart(pid, pid)
		if err != nil {
			t.Fatal(err)
		}
		if exec == 0 {
			if last, ok := clocks.lastRan(pid, pid); ok {
				t.Fatalf("it was woken, and is said to have slept for %v", time.Since(last))
			}
			return
		}
	}
	t.Fatal("the thread was not seen between two processors")
}
