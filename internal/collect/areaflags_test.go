package collect

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

const areasChildEnv = "FERMATA_TEST_AREAS"

// TestAreasChild is a program with areas of all kinds, in the test's own binary.
func TestAreasChild(t *testing.T) {
	mode := os.Getenv(areasChildEnv)
	if mode == "" {
		t.Skip("not a child")
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		prot := []int{unix.PROT_NONE, unix.PROT_READ, unix.PROT_READ | unix.PROT_WRITE, unix.PROT_READ | unix.PROT_EXEC}[r.IntN(4)]
		flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
		switch r.IntN(8) {
		case 0:
			flags |= unix.MAP_NORESERVE
		case 1:
			flags |= unix.MAP_GROWSDOWN
		case 2:
			flags = unix.MAP_SHARED | unix.MAP_ANONYMOUS
		}
		b, err := unix.Mmap(-1, 0, 4096*(1+r.IntN(3)), prot, flags)
		if err != nil {
			t.Fatal(err)
		}
		if r.IntN(2) == 0 {
			_ = unix.Madvise(b, int(madvices[r.IntN(len(madvices))].advice))
		}
		if r.IntN(30) == 0 {
			_ = unix.Mlock(b[:4096])
		}
		if prot&unix.PROT_WRITE != 0 && flags&unix.MAP_GROWSDOWN == 0 {
			b[0] = 1
		}
	}
	if mode == "uffd" {
		b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			t.Fatal(err)
		}
		fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|sys.UffdUserModeOnly, 0, 0)
		if e != 0 {
			t.Fatal(e)
		}
		if err := sys.UffdEnable(int(fd), 0); err != nil {
			t.Fatal(err)
		}
		if err := sys.UffdRegister(int(fd), uint64(addressOf(b)), 4096, sys.UffdMissing); err != nil {
			t.Fatal(err)
		}
	}
	os.Stdout.WriteString("+")
	os.Stdin.Read(make([]byte, 1))
}

// stopped starts the program and stops it.
func stopped(t *testing.T, mode string) int {
	t.Helper()
	c := exec.Command("/proc/self/exe", "-test.run=^TestAreasChild$")
	c.Env = append(os.Environ(), areasChildEnv+"="+mode)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); c.Process.Kill(); c.Wait() })
	if b := make([]byte, 1); readOne(out.Read, b) != nil || b[0] != '+' {
		t.Fatalf("the child said %q", b)
	}
	if err := c.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for {
		if st, err := procfs.ReadStat(c.Process.Pid, 0); err != nil || st.State == 'T' {
			return c.Process.Pid
		}
	}
}

func readOne(read func([]byte) (int, error), b []byte) error {
	n, err := read(b)
	if n == 1 {
		return nil
	}
	return errors.Join(err, errors.New("nothing"))
}

// TestAreaFlags: both ways to read a map give the same.
func TestAreaFlags(t *testing.T) {
	var f areaFlags
	defer f.close()
	if err := f.ready(); err != nil {
		if os.Geteuid() == 0 && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	pid := stopped(t, "many")
	fast, err := f.read(pid)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := procfs.ReadSmapsFlags(pid)
	if err != nil {
		t.Fatal(err)
	}
	if len(fast) != len(slow) || len(fast) < 1000 {
		t.Fatalf("%d areas, smaps has %d", len(fast), len(slow))
	}
	var seen procfs.VMFlags
	for i := range fast {
		if slow[i].Path == "[vsyscall]" {
			continue
		}
		if fast[i].VMA != slow[i].VMA || fast[i].Flags != slow[i].Flags {
			t.Errorf("%+v, smaps has %+v: flags %v and %v", fast[i].VMA, slow[i].VMA, fast[i].Flags, slow[i].Flags)
		}
		seen |= fast[i].Flags
	}
	const all = procfs.VMGrowsDown | procfs.VMLocked | procfs.VMSeqRead | procfs.VMRandRead | procfs.VMDontCopy | procfs.VMNoReserve |
		procfs.VMWipeOnFork | procfs.VMDontDump | procfs.VMAccount | procfs.VMShared | procfs.VMPFNMap
	if !seen.Has(all) {
		t.Errorf("of the flags only %v were seen", seen)
	}
	// The whole way, as a checkpoint takes it.
	s := Look([]int{pid}, nil)
	defer s.Close()
	if !s.many[pid] {
		t.Error("a process with so many areas was not noticed")
	}
	if s = Look([]int{os.Getpid()}, nil); s.many[os.Getpid()] {
		t.Error("this process has many areas?")
	}
	s.Close()
}

// TestAreaFlagsUnknown: what was not learned is no guess.
func TestAreaFlagsUnknown(t *testing.T) {
	var f areaFlags
	defer f.close()
	if err := f.ready(); err != nil {
		t.Skip(err) // the other test tells
	}
	pid := stopped(t, "uffd")
	if _, err := f.read(pid); err == nil {
		t.Error("the flags of an area with a userfaultfd are known")
	}
	all := facts{pid: pid, at: pid, flags: &f}
	sm, err := all.readAreas()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range sm {
		if sm[i].Flags&procfs.VMUffdMissing != 0 {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d areas with a userfaultfd", n)
	}
}

func TestLearn(t *testing.T) {
	a, b, c := procfs.VMRead, procfs.VMWrite, procfs.VMExec
	table, err := learn([]uint64{1, 3, 8 | 16, 1 | 8 | 16}, []procfs.VMFlags{a, a | b, c, a | c})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		raw   uint64
		flags procfs.VMFlags
		known bool
	}{{0, 0, true}, {1, a, true}, {3, a | b, true}, {24, c, true}, {27, a | b | c, true}, {8, 0, false}, {4, 0, false}, {1 | 1<<40, 0, false}} {
		if f, known := table.flags(x.raw); known != x.known || known && f != x.flags {
			t.Errorf("%#x: %v, %v", x.raw, f, known)
		}
	}
	if _, err := learn([]uint64{1, 1}, []procfs.VMFlags{a, b}); err == nil {
		t.Error("a flag that is no bit was learned")
	}
}
