package tracee

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// TestGadgetsOfRealPrograms: what a session leans on is there in programs with
// libc and in Go programs.
func TestGadgetsOfRealPrograms(t *testing.T) {
	look := func(pid int) (Gadgets, []procfs.VMA) {
		maps, err := procfs.ReadMaps(pid)
		if err != nil {
			t.Fatal(err)
		}
		g, ok := FindGadgets(pid, maps)
		if !ok {
			t.Fatalf("pid %d: none", pid)
		}
		return g, maps
	}
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	time.Sleep(20 * time.Millisecond)
	for _, pid := range []int{c.Process.Pid, os.Getpid()} {
		g, maps := look(pid)
		if g.Syscall == 0 || g.Sigreturn == 0 || g.Exit == 0 {
			t.Errorf("pid %d: %+v", pid, g)
		}
		for _, at := range []uint64{g.Syscall, g.Exit} {
			b := make([]byte, 2)
			if err := sys.ReadMem(pid, at, b); err != nil || !bytes.Equal(b, syscallInsn) {
				t.Errorf("pid %d: %x at %#x (%v)", pid, b, at, err)
			}
		}
		// The way without a sigreturn must be found too.
		g.findFifteen(pid, maps)
		if g.Fifteen == 0 {
			t.Errorf("pid %d: no way to fifteen", pid)
		}
	}
}

func TestScanExit(t *testing.T) {
	pad := func(b ...byte) []byte { return append(append([]byte{0xcc, 0xcc}, b...), make([]byte, 16)...) }
	for _, c := range []struct {
		name     string
		code     []byte
		off, reg int
	}{
		{"glibc", pad(0x31, 0xff, 0x89, 0xd0, 0x0f, 0x05, 0xeb, 0xf8), 6, 2},
		{"musl", pad(0x0f, 0x05, 0x48, 0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05), 2, 0},
		{"go", pad(0xbf, 111, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf2), 12, 0},
		{"the whole process", pad(0x0f, 0x05, 0xb8, 231, 0, 0, 0, 0x0f, 0x05), -1, 0},
		{"a register that is overwritten", pad(0x0f, 0x05, 0x31, 0xd2, 0x89, 0xd0, 0x0f, 0x05), -1, 0},
		{"a register that system calls overwrite", pad(0x0f, 0x05, 0x89, 0xc8, 0x0f, 0x05), -1, 0},
		{"the argument", pad(0x0f, 0x05, 0x89, 0xf8, 0x0f, 0x05), -1, 0},
		{"a stack", pad(0x0f, 0x05, 0x58, 0xb8, 60, 0, 0, 0, 0x0f, 0x05), -1, 0},
		{"for ever", pad(0x0f, 0x05, 0xeb, 0xfe), -1, 0},
		{"no number", pad(0x0f, 0x05, 0x0f, 0x05), -1, 0},
	} {
		if off, reg := scanExit(c.code); off != c.off || reg != c.reg {
			t.Errorf("%s: %d, register %d; want %d, %d", c.name, off, reg, c.off, c.reg)
		}
	}
}

func TestScanFifteen(t *testing.T) {
	for _, c := range []struct {
		name           string
		code           []byte
		leave          bool
		off, reg, pops int
		ok             bool
	}{
		{"pop", []byte{0xcc, 0x58, 0xc3, 0}, false, 1, 0, 8, true},
		{"mov ebx", []byte{0x89, 0xd8, 0x5b, 0xc3}, true, 0, 3, 8, true},
		{"mov r12, more", []byte{0x44, 0x89, 0xe0, 0x48, 0x83, 0xc4, 0x18, 0x5b, 0x41, 0x5c, 0xc3}, false, 0, 12, 40, true},
		{"the other form", []byte{0x41, 0x8b, 0xc7, 0xc3, 0, 0}, false, 0, 15, 0, true},
		{"rbp, which leave takes", []byte{0x89, 0xe8, 0xc3, 0, 0}, true, 0, 0, 0, false},
		{"rbp", []byte{0x89, 0xe8, 0xc3, 0, 0}, false, 0, 5, 0, true},
		{"a register that calls change", []byte{0x89, 0xf0, 0xc3, 0, 0}, false, 0, 0, 0, false},
		{"rax is lost", []byte{0x89, 0xd8, 0x58, 0x5b, 0xc3}, false, 0, 0, 0, false},
		{"rsp is lost", []byte{0x89, 0xd8, 0x5c, 0xc3}, false, 0, 0, 0, false},
	} {
		off, reg, pops, ok := scanFifteen(c.code, c.leave)
		if ok != c.ok || ok && (off != c.off || reg != c.reg || pops != c.pops) {
			t.Errorf("%s: %d, register %d, %d bytes, %v", c.name, off, reg, pops, ok)
		}
	}
}

// FuzzScan: whatever a program's text is, looking at it ends.
func FuzzScan(f *testing.F) {
	f.Add([]byte{0x31, 0xff, 0x89, 0xd0, 0x0f, 0x05, 0xeb, 0xf8})
	f.Add([]byte{0x0f, 0x05, 0x48, 0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05, 0x58, 0xc3})
	f.Add([]byte{0x44, 0x89, 0xe0, 0x48, 0x83, 0xc4, 0x18, 0x5b, 0x41, 0x5c, 0xc3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if off, reg := scanExit(b); off >= 0 && (!bytes.HasPrefix(b[off:], syscallInsn) || reg < 0 || reg > 15) {
			t.Errorf("exit at %d, register %d", off, reg)
		}
		if off, _, pops, ok := scanFifteen(b, len(b)%2 == 0); ok && (off >= len(b) || pops%8 != 0) {
			t.Errorf("fifteen at %d, %d bytes", off, pops)
		}
		if off, _, ok := scanSyscallRet(b); ok && !bytes.HasPrefix(b[off:], syscallInsn) {
			t.Errorf("syscall at %d", off)
		}
	})
}
