package resource

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	fileChildren["fifos"] = func() {
		// 10, 11, 12: both directions, content
		must(unix.Mkfifo("f", 0o640))
		as(10, open("f", unix.O_RDONLY|unix.O_NONBLOCK), nil)
		as(11, open("f", unix.O_WRONLY), nil)
		as(12, open("f", unix.O_RDWR|unix.O_NONBLOCK), nil)
		must1(unix.Write(11, pattern(10000, 3)))
		// 13: a reader that never had a writer; 14: one that had
		must(unix.Mkfifo("r", 0o600))
		as(13, open("r", unix.O_RDONLY|unix.O_NONBLOCK), nil)
		must(unix.Mkfifo("h", 0o600))
		as(14, open("h", unix.O_RDONLY|unix.O_NONBLOCK), nil)
		must(unix.Close(open("h", unix.O_WRONLY)))
		// 15, 16: deleted
		must(unix.Mkfifo("gone", 0o600))
		as(15, open("gone", unix.O_RDONLY|unix.O_NONBLOCK), nil)
		as(16, open("gone", unix.O_WRONLY), nil)
		must1(unix.Write(16, []byte("ghost")))
		must(unix.Unlink("gone"))
		// 17: a writer whose reader went, in packet mode
		must(unix.Mkfifo("w", 0o600))
		fd := open("w", unix.O_RDWR)
		as(17, open("w", unix.O_WRONLY), nil)
		must1(unix.FcntlInt(17, unix.F_SETFL, unix.O_DIRECT))
		must(unix.Close(fd))
	}
	fileChildren["fifo-out"] = func() {
		as(10, open("f", unix.O_RDONLY|unix.O_NONBLOCK), nil)
	}
}

func hangup(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	must1(unix.Poll(p, 0))
	return p[0].Revents&unix.POLLHUP != 0
}

func TestFifos(t *testing.T) {
	c := startChild(t, "fifos").collect()
	x := c.restore()
	must(x.Commit())
	if got := readAll(t, x.fd(10)); !bytes.Equal(got, pattern(10000, 3)) {
		t.Errorf("content: %d bytes that differ", len(got))
	}
	for fd, want := range map[int]int{10: unix.O_NONBLOCK, 11: unix.O_WRONLY, 12: unix.O_RDWR | unix.O_NONBLOCK, 17: unix.O_WRONLY | unix.O_DIRECT} {
		if got := x.flags(fd) &^ kernelLargefile; got != want {
			t.Errorf("flags of %d: %#o", fd, got)
		}
	}
	must1(unix.Write(x.fd(11), []byte("x")))
	if got := readAll(t, x.fd(12)); string(got) != "x" {
		t.Errorf("%q", got)
	}
	if hangup(x.fd(13)) || !hangup(x.fd(14)) {
		t.Errorf("hang-ups: %v %v", hangup(x.fd(13)), hangup(x.fd(14)))
	}
	if x.link(13) != c.dir+"/r" || x.link(15) != c.dir+"/gone (deleted)" {
		t.Errorf("%s, %s", x.link(13), x.link(15))
	}
	if got := readAll(t, x.fd(15)); string(got) != "ghost" {
		t.Errorf("deleted: %q", got)
	}
	must1(unix.Write(x.fd(16), []byte("more")))
	if got := readAll(t, x.fd(15)); string(got) != "more" {
		t.Errorf("deleted: %q", got)
	}
	if _, err := unix.Write(x.fd(17), []byte("x")); err != unix.EPIPE {
		t.Errorf("17 has a reader: %v", err)
	}
}

func TestFifoOutside(t *testing.T) {
	dir := t.TempDir()
	must(unix.Mkfifo(dir+"/f", 0o600))
	w := must1(unix.Open(dir+"/f", unix.O_RDWR|unix.O_CLOEXEC, 0))
	c := startChildIn(t, "fifo-out", dir, nil)
	c.collect()
	reasons(t, c.refuse, "write end is held outside the tree")
	unix.Close(w)
	c.table = nil
	c.collect()
	c.kill()
	// Somebody else fills it before the restore.
	w = must1(unix.Open(dir+"/f", unix.O_RDWR|unix.O_CLOEXEC, 0))
	defer unix.Close(w)
	x := c.prepare(FilesStrict)
	must(x.Refuse.Err())
	must1(unix.Write(w, []byte("foreign")))
	if _, err := x.Open(x.table[10]); err == nil {
		t.Error("opened a FIFO that holds a stranger's data")
	}
}
