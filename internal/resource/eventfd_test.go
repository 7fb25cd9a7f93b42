package resource

import (
	"encoding/binary"
	"math"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
)

var eventfdRole = role("eventfd", func(a *actor) {
	make := func(n int, count uint64, flags, status int) {
		fd, err := unix.Eventfd(0, flags)
		a.at(fd, err, n)
		if count > 0 {
			_, err := unix.Write(n, binary.NativeEndian.AppendUint64(nil, count))
			a.must(err)
		}
		have, err := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0)
		a.must(err)
		_, err = unix.FcntlInt(uintptr(n), unix.F_SETFL, have|status)
		a.must(err)
	}
	make(100, 0, 0, 0)
	make(101, 1<<40+5, unix.EFD_NONBLOCK, 0)
	make(102, 3, unix.EFD_SEMAPHORE, 0)
	make(103, math.MaxUint64-1, 0, unix.O_APPEND)
	a.must(unix.Dup3(102, 104, 0))
	a.say("ready")
})

func TestEventfd(t *testing.T) {
	p := start(t, eventfdRole, nil)
	s := save(t, p.pid)
	r := s.open(t)
	for _, c := range []struct {
		fd    int
		reads []uint64
		flags int
	}{
		{100, nil, unix.O_RDWR},
		{101, []uint64{1<<40 + 5}, unix.O_RDWR | unix.O_NONBLOCK},
		{103, []uint64{math.MaxUint64 - 1}, unix.O_RDWR | unix.O_APPEND},
		{102, []uint64{1, 1, 1}, unix.O_RDWR},
	} {
		fd := s.fd(t, r, p.pid, c.fd)
		if fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || fl != c.flags {
			t.Errorf("%d: flags %#o (%v), want %#o", c.fd, fl, err, c.flags)
		}
		if fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || fl != unix.FD_CLOEXEC {
			t.Errorf("%d: not close-on-exec in the controller", c.fd)
		}
		for _, want := range c.reads {
			if !readable(t, fd, 0) {
				t.Fatalf("%d: nothing to read, want %d", c.fd, want)
			}
			var b [8]byte
			if _, err := unix.Read(fd, b[:]); err != nil {
				t.Fatal(err)
			}
			if got := binary.NativeEndian.Uint64(b[:]); got != want {
				t.Errorf("%d: read %d, want %d", c.fd, got, want)
			}
		}
		if readable(t, fd, 0) {
			t.Errorf("%d: more to read", c.fd)
		}
	}
	if s.fd(t, r, p.pid, 102) != s.fd(t, r, p.pid, 104) {
		t.Error("duplicates became two eventfds")
	}
}

// TestProbeSemaphore tries what older kernels need against this one.
func TestProbeSemaphore(t *testing.T) {
	for _, flags := range []int{0, unix.EFD_SEMAPHORE} {
		for _, count := range []uint64{0, 1, 2, 3, 1000, eventfdMax} {
			fd, err := unix.Eventfd(0, flags)
			if err != nil {
				t.Fatal(err)
			}
			if count > 0 {
				if _, err := unix.Write(fd, binary.NativeEndian.AppendUint64(nil, count)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := probeSemaphore(fd, count)
			if err != nil || got != (flags != 0) {
				t.Errorf("flags %d, count %d: %v, %v", flags, count, got, err)
			}
			f := &File{PID: unix.Getpid(), FD: fd}
			if n := eventCount(t, f); n != count {
				t.Errorf("flags %d: count %d became %d", flags, count, n)
			}
			unix.Close(fd)
		}
	}
}

func eventCount(t *testing.T, f *File) uint64 {
	t.Helper()
	info, err := procfs.ReadFDInfo(f.PID, f.FD)
	if err != nil {
		t.Fatal(err)
	}
	return info.Eventfd.Count
}
