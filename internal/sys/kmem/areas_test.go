package kmem

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

// TestAreas compares the areas of processes, of few and of many, with their maps.
func TestAreas(t *testing.T) {
	r, err := Open()
	if err != nil {
		t.Skip(err)
	}
	defer r.Close()
	for _, argv := range [][]string{{"sleep", "60"}, {"python3", "-c", `
import mmap, time
keep = [mmap.mmap(-1, 4096 * 2, prot=mmap.PROT_READ | (mmap.PROT_WRITE if i % 2 else 0)) for i in range(3000)]
print("ready", flush=True)
time.sleep(60)`}} {
		c := exec.Command(argv[0], argv[1:]...)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { c.Process.Kill(); c.Wait() }()
		if argv[0] == "python3" {
			if _, err := out.Read(make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Millisecond)
		p, err := unix.PidfdOpen(c.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p)
		began := time.Now()
		got := r.Areas(r.Process(p, c.Process.Pid))
		took := time.Since(began)
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		sm, err := procfs.ReadSmapsFlags(c.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if sm[len(sm)-1].Path == "[vsyscall]" {
			sm = sm[:len(sm)-1]
		}
		if len(got) != len(sm) {
			t.Fatalf("%s: %d areas, %d in smaps", argv[0], len(got), len(sm))
		}
		for i, a := range got {
			if a.Start != sm[i].Start || a.End != sm[i].End {
				t.Errorf("%#x-%#x, in smaps %#x-%#x", a.Start, a.End, sm[i].Start, sm[i].End)
			}
		}
		t.Logf("%s: %d areas in %v", argv[0], len(got), took)
	}
	_ = os.Stdout
}
