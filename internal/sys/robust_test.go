package sys

import (
	"encoding/binary"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	robustWords  = 2*robustMax + 100
	robustStride = 64
)

// robustChild owns many robust futexes and dies.
func robustChild() {
	runtime.LockOSThread()
	mem, err := unix.Mmap(3, 0, robustWords*robustStride, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	first, err := NewRobustList(8)
	if err != nil {
		panic(err)
	}
	for i := range robustWords {
		l, err := first.Room()
		if err != nil {
			panic(err)
		}
		node := mem[i*robustStride:]
		binary.NativeEndian.PutUint32(node[8:], uint32(l.TID())|FutexWaiters)
		l.Add(node[:8])
		if i%7 == 3 {
			l.Remove(node[:8])
		}
	}
	unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

// TestRobustListsOfTheDead: whoever dies with more robust futexes than the
// kernel follows in one list is known to be dead in each of them.
func TestRobustListsOfTheDead(t *testing.T) {
	if os.Getenv("FERMATA_TEST_ROBUST") != "" {
		robustChild()
	}
	fd, err := unix.MemfdCreate("robust", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "robust")
	defer f.Close()
	if err := f.Truncate(robustWords * robustStride); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, robustWords*robustStride, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	c := exec.Command(os.Args[0], "-test.run=^TestRobustListsOfTheDead$")
	c.Env = append(os.Environ(), "FERMATA_TEST_ROBUST=1")
	c.ExtraFiles = []*os.File{f}
	if err := c.Run(); err == nil {
		t.Fatal("it did not die")
	}
	for i := range robustWords {
		w := atomic.LoadUint32(Word(mem, i*robustStride+8))
		dead, removed := w&FutexOwnerDied != 0, i%7 == 3
		if dead == removed {
			t.Fatalf("word %d is %#x", i, w)
		}
	}
}
