package tracee

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// session freezes pid, runs f with a guest in thread pick, and lets it go.
func session(t *testing.T, pid, pick int, f func(g *Guest, tr *Tree)) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	list, err := sys.NewRobustList(RobustOffset)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	maps, err := procfs.ReadMaps(pid)
	if err != nil {
		t.Fatal(err)
	}
	gad, ok := FindGadgets(pid, maps)
	if !ok {
		t.Fatal("no gadgets")
	}
	tr, err := Freeze([]int{pid}, FreezeOptions{Exclude: Self()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tr.Thaw(); err != nil {
			t.Error(err)
		}
	}()
	p := tr.Process(pid)
	g, err := Inject(pid, p.Threads[pick%len(p.Threads)], len(p.Threads), maps, gad, 0, 0, list)
	if err != nil {
		t.Fatal(err)
	}
	f(g, tr)
	if err := g.Release(); err != nil {
		t.Error(err)
	}
}

// TestSessionLeavesNoTrace examines a real program many times over, in the
// middle of a sleep and of a computation, and then compares what it shows.
func TestSessionLeavesNoTrace(t *testing.T) {
	for _, argv := range [][]string{{"sleep", "1000"}, {"sh", "-c", "i=0; while :; do i=$((i+1)); done"}} {
		c := exec.Command(argv[0], argv[1:]...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { c.Process.Kill(); c.Wait() }()
		pid := c.Process.Pid
		time.Sleep(20 * time.Millisecond)
		before, err := procfs.ReadMaps(pid)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			session(t, pid, i, func(g *Guest, tr *Tree) {
				e, err := g.Executor(tr.Process(pid).Threads[0])
				if err != nil {
					t.Fatal(err)
				}
				for range 5 {
					e.Reset()
					a, b := e.Add(unix.SYS_GETPID), e.Add(unix.SYS_GETPPID)
					if err := e.Run(); err != nil {
						t.Fatal(err)
					}
					if int(e.Result(a)) != pid || int(e.Result(b)) != os.Getpid() {
						t.Fatalf("getpid %d, getppid %d", e.Result(a), e.Result(b))
					}
				}
			})
			if t.Failed() {
				return
			}
		}
		after, err := procfs.ReadMaps(pid)
		if err != nil {
			t.Fatal(err)
		}
		if len(before) != len(after) {
			t.Errorf("%v: %d areas before, %d after", argv, len(before), len(after))
		}
		st, err := procfs.ReadStatus(pid, pid)
		if err != nil || st.TracerPid != 0 || st.SigBlk != 0 || (st.State != 'S' && st.State != 'R') {
			t.Errorf("%v: %+v %v", argv, st, err)
		}
	}
}

func BenchmarkSession(b *testing.B) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	time.Sleep(20 * time.Millisecond)
	for b.Loop() {
		session(&testing.T{}, c.Process.Pid, 0, func(g *Guest, tr *Tree) {})
	}
}

// TestElsewhere: the place of a region is free, and another one each time.
func TestElsewhere(t *testing.T) {
	const size = 40 * sys.PageSize
	for _, maps := range [][]procfs.VMA{
		nil,
		{{Start: 0x400000, End: 0x500000}, {Start: 0x7f0000000000, End: 0x7f0000100000}, {Start: 0x7ffc00000000, End: 0x7ffc00021000}},
		{{Start: 1 << 16, End: 1 << 32}, {Start: 1<<32 + size + 64*sys.PageSize, End: 1<<47 - sys.PageSize}},
		{{Start: 1 << 16, End: 1 << 32}, {Start: 1<<32 + size + 2*sys.PageSize, End: 1<<47 - sys.PageSize}},
	} {
		seen := map[uint64]bool{}
		for range 1000 {
			at := elsewhere(maps, size)
			if at < 1<<16 || at%sys.PageSize != 0 || at+size > 1<<47-sys.PageSize {
				t.Fatalf("%#x", at)
			}
			for _, v := range maps {
				if at < v.End && v.Start < at+size {
					t.Fatalf("%#x lies in %#x-%#x", at, v.Start, v.End)
				}
			}
			seen[at] = true
		}
		t.Logf("%d places", len(seen))
	}
	if at := elsewhere([]procfs.VMA{{Start: 1 << 16, End: 1<<47 - sys.PageSize}}, size); at != 0 {
		t.Errorf("%#x where nothing is free", at)
	}
}
