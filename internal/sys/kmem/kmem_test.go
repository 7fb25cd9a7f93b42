package kmem

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T) *Reader {
	t.Helper()
	r, err := Open()
	if err != nil {
		if os.Geteuid() == 0 && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestQueues: what waits in sockets is read as it was sent, and still waits.
func TestQueues(t *testing.T) {
	r := open(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 40<<10/16)
	for _, c := range []struct {
		name string
		typ  int
		data []byte
	}{{"stream", unix.SOCK_STREAM, []byte("hello")}, {"pages", unix.SOCK_STREAM, big}, {"dgram", unix.SOCK_DGRAM, big}} {
		p, err := unix.Socketpair(unix.AF_UNIX, c.typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(p[0], c.data); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, b := range r.Socket(p[1]).In("sk_receive_queue", "sk_buff_head").Buffers() {
			got = append(got, b.Data()...)
		}
		if err := r.Err(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !bytes.Equal(got, c.data) {
			t.Errorf("%s: %d bytes of %d: %.40q", c.name, len(got), len(c.data), got)
		}
		buf := make([]byte, 64<<10)
		if n, err := unix.Read(p[1], buf); err != nil || n == 0 || !bytes.HasPrefix(c.data, buf[:n]) {
			t.Errorf("%s: read afterwards: %d, %v", c.name, n, err)
		}
		unix.Close(p[0])
		unix.Close(p[1])
	}
}

// TestPID: a process knows itself.
func TestPID(t *testing.T) {
	r := open(t)
	if pid := r.PID(r.Task().Ptr("signal", "signal_struct").Ptr("leader_pid", "pid")); r.Err() == nil {
		t.Errorf("a member that does not exist was read: %d", pid)
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	if p := r.Process(pidfd, os.Getpid()); p.Int("tgid") != p.Int("pid") || r.Err() != nil {
		t.Errorf("process %d of %d: %v", p.Int("pid"), p.Int("tgid"), r.Err())
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if tid := r.PID(r.Task().Ptr("thread_pid", "pid")); tid != unix.Gettid() || r.Err() != nil {
		t.Errorf("thread %d, not %d", tid, unix.Gettid())
	}
}

// TestErrors: what is not there is an error, and no more than that.
func TestErrors(t *testing.T) {
	r := open(t)
	if r.Bytes(0xffff_8000_0000_0000, 8); r.Err() == nil {
		t.Error("an address without memory was read")
	}
	if r.Bytes(16, 8); r.Err() == nil {
		t.Error("address 16 was read")
	}
	if r.File(1 << 20); !errors.Is(r.Err(), ErrChanged) {
		t.Error("a descriptor that is not open was found")
	}
	if r.At("sock", 1<<20).Uint("no_such_member"); !errors.Is(r.Err(), ErrUnavailable) {
		t.Error("a member that does not exist was found")
	}
	if r.At("no_such_struct", 1<<20).Uint("a"); !errors.Is(r.Err(), ErrUnavailable) {
		t.Error("a structure that does not exist was found")
	}
	if err := r.Err(); err != nil {
		t.Errorf("an error was told twice: %v", err)
	}
}

func FuzzParseBTF(f *testing.F) {
	if b, err := os.ReadFile("/sys/kernel/btf/vmlinux"); err == nil {
		f.Add(b[:200])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseBTF(b)
		if err != nil {
			return
		}
		for i := range x.at {
			x.size(uint32(i))
			x.in(uint32(i), "a", 0)
		}
		_, _ = x.member("task_struct", "files.fdt")
	})
}

func BenchmarkOpen(b *testing.B) {
	for range b.N {
		r, err := Open()
		if err != nil {
			b.Fatal(err)
		}
		r.Socket(0)
		r.Close()
	}
}
