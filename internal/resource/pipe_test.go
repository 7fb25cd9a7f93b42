package resource

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7)>>1 ^ byte(i>>8) ^ seed
	}
	return b
}

func pipeAs(r, w, flags int) {
	var p [2]int
	must(unix.Pipe2(p[:], flags))
	as(r, p[0], nil)
	as(w, p[1], nil)
}

func init() {
	fileChildren["pipes"] = func() {
		// 10, 11: content, 12 a second description of the read end
		pipeAs(10, 11, unix.O_NONBLOCK)
		must1(unix.Write(11, pattern(50000, 1)))
		as(12, must1(unix.Open("/proc/self/fd/10", unix.O_RDONLY, 0)), nil)
		// 13, 14: larger, in packet mode
		pipeAs(13, 14, unix.O_DIRECT)
		must1(unix.FcntlInt(14, unix.F_SETPIPE_SZ, 1<<20))
		for _, n := range []int{5, 1, 4096, 70} {
			must1(unix.Write(14, pattern(n, byte(n))))
		}
		// 15: read end, writer closed, content left
		pipeAs(15, 16, 0)
		must1(unix.Write(16, []byte("the rest")))
		must(unix.Close(16))
		// 17: write end, reader closed
		pipeAs(18, 17, 0)
		must(unix.Close(18))
		// 19: both ways, content of many small buffers
		pipeAs(20, 21, 0)
		as(19, must1(unix.Open("/proc/self/fd/20", unix.O_RDWR|unix.O_NONBLOCK, 0)), nil)
		must(unix.Close(20))
		must(unix.Close(21))
		for i := range 10 {
			must1(unix.Write(19, pattern(3000, byte(i))))
		}
		chown(19, 4711, 4712)
	}
	fileChildren["pipe-out"] = func() {
		as(10, must1(unix.Dup(0)), nil)
	}
}

func readAll(t *testing.T, fd int) []byte {
	t.Helper()
	var out []byte
	b := make([]byte, 1<<16)
	for {
		n, err := unix.Read(fd, b)
		if err == unix.EAGAIN || n == 0 && err == nil {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b[:n]...)
	}
}

func TestPipes(t *testing.T) {
	c := startChild(t, "pipes").collect()
	x := c.restore()
	if got := readAll(t, x.fd(10)); !bytes.Equal(got, pattern(50000, 1)) {
		t.Errorf("content of 10: %d bytes that differ", len(got))
	}
	if x.flags(10) != unix.O_NONBLOCK || x.flags(11) != unix.O_WRONLY|unix.O_NONBLOCK {
		t.Errorf("flags %#o %#o", x.flags(10), x.flags(11))
	}
	if x.flags(12) != kernelLargefile {
		t.Errorf("flags of the second description: %#o", x.flags(12))
	}
	if _, err := unix.Write(x.fd(11), []byte("new")); err != nil {
		t.Error(err)
	}
	var b [8192]byte
	if n, err := unix.Read(x.fd(12), b[:]); n != 3 || err != nil {
		t.Errorf("through the second read end: %d %v", n, err)
	}
	if n, err := unix.FcntlInt(uintptr(x.fd(13)), unix.F_GETPIPE_SZ, 0); n != 1<<20 || err != nil {
		t.Errorf("capacity %d %v", n, err)
	}
	if x.flags(13) != 0 || x.flags(14) != unix.O_DIRECT|unix.O_WRONLY {
		t.Errorf("flags %#o %#o", x.flags(13), x.flags(14))
	}
	for _, want := range []int{5, 1, 4096, 70} {
		if n, err := unix.Read(x.fd(13), b[:]); n != want || err != nil || !bytes.Equal(b[:n], pattern(n, byte(n))) {
			t.Errorf("packet of %d: %d %v", want, n, err)
		}
	}
	if n, err := unix.Read(x.fd(15), b[:]); string(b[:n]) != "the rest" || err != nil {
		t.Errorf("left in 15: %q %v", b[:n], err)
	}
	if n, err := unix.Read(x.fd(15), b[:]); n != 0 || err != nil {
		t.Errorf("15 is not at its end: %d %v", n, err)
	}
	if _, err := unix.Write(x.fd(17), b[:1]); err != unix.EPIPE {
		t.Errorf("17 has a reader: %v", err)
	}
	for i := range 10 {
		if n, err := unix.Read(x.fd(19), b[:3000]); n != 3000 || err != nil || !bytes.Equal(b[:n], pattern(3000, byte(i))) {
			t.Fatalf("19, piece %d: %d %v", i, n, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(x.fd(19), &st); err != nil || !ownedBy(&st, 4711, 4712) {
		t.Errorf("owner of 19: %d:%d %v", st.Uid, st.Gid, err)
	}
}

// TestPipeKeepsContent: collecting must not take anything from the program.
func TestPipeKeepsContent(t *testing.T) {
	c := startChild(t, "pipes")
	first := c.collect().image()
	c.table = nil
	second := c.collect().image()
	a, _ := first.Records("pipes-data")
	b, _ := second.Records("pipes-data")
	if len(a) != 4 || len(a) != len(b) {
		t.Fatalf("%d and %d pipes with content", len(a), len(b))
	}
	for i := range a {
		if !bytes.Equal(a[i].Payload, b[i].Payload) {
			t.Errorf("record %d differs", i)
		}
	}
}

func TestPipeOutsideReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := startChildIn(t, "pipe-out", t.TempDir(), w)
	w.Close()
	c.collect()
	reasons(t, c.refuse, "read end is held outside the tree")
	r.Close()
	c.table = nil
	x := c.collect().restore()
	if _, err := unix.Write(x.fd(10), []byte("x")); err != unix.EPIPE {
		t.Errorf("there is a reader: %v", err)
	}
}

func TestPipeOutside(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// A process that is neither the checkpoint nor this test holds the end.
	holder := exec.Command("sleep", "1000")
	holder.Stdout = w
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { holder.Process.Kill(); holder.Wait() }()
	w.Close()
	c := startChildIn(t, "pipe-out", t.TempDir(), r)
	c.collect()
	reasons(t, c.refuse, "write end is held outside the tree (pid ")
	if s := c.refuse.Err().Error(); !strings.Contains(s, "sleep, fd 1") || !strings.Contains(s, "redirect") {
		t.Error(s)
	}
	holder.Process.Kill()
	holder.Wait()
	// Now nobody has it: the pipe is merely at its end.
	c.collect()
	x := c.restore()
	if n, err := unix.Read(x.fd(10), make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("%d %v", n, err)
	}
}
