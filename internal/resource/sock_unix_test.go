package resource

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// socketCase saves a child's sockets, lets check look at the child's own (the
// checkpoint must have left no trace), and then at what a restore makes.
func socketCase(t *testing.T, name string, check func(t *testing.T, fd func(int) int)) {
	c := startChild(t, name)
	c.collect()
	t.Run("left", func(t *testing.T) { check(t, c.dup(t)) })
	t.Run("restored", func(t *testing.T) {
		c.t = t
		done := must1(c.dump.BeforeKill())
		c.kill()
		must(done())
		c.dump.Close()
		x := c.restore()
		for _, n := range x.notes {
			// There are no tasks here, and not always privilege.
			if !strings.Contains(n, "shows pid") && !strings.Contains(n, "shows another port") && !strings.Contains(n, "cannot be said again") {
				t.Errorf("note: %s", n)
			}
		}
		must(x.Commit())
		check(t, x.fd)
		left, err := filepath.Glob(filepath.Join(c.dir, ".fermata*"))
		if err != nil || len(left) != 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	})
}

// dup gives the child's own descriptors.
func (c *child) dup(t *testing.T) func(int) int {
	p, err := unix.PidfdOpen(c.pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p) })
	return func(n int) int {
		fd, err := unix.PidfdGetfd(p, n, 0)
		if err != nil {
			t.Fatalf("fd %d: %v", n, err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
}

// pairAt puts a socket pair at two numbers.
func pairAt(typ, a, b int) {
	p := must1(unix.Socketpair(unix.AF_UNIX, typ, 0))
	for i, n := range []int{a, b} {
		must(unix.Dup3(p[i], n, 0))
	}
	must(unix.Close(p[0]))
	must(unix.Close(p[1]))
}

func socketAt(domain, typ, n int) int {
	fd, err := unix.Socket(domain, typ, 0)
	as(n, fd, err)
	return n
}

func sendTo(fd int, data string, oob []byte) { must(unix.Sendmsg(fd, []byte(data), oob, nil, 0)) }

// next receives one message: its data, the sender, the descriptors and the
// credentials.
func next(t *testing.T, fd int, size int) (data string, from string, fds []int, cred *unix.Ucred) {
	t.Helper()
	buf, oob, name := make([]byte, size), make([]byte, 4096), make([]byte, 128)
	n, err := sys.Recvmsg(fd, buf, oob, name, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err.Error(), "", nil, nil
	}
	if n.Name > 2 {
		from = string(name[2:n.Name])
	}
	cs, err := unix.ParseSocketControlMessage(oob[:n.OOB])
	if err != nil {
		t.Fatal(err)
	}
	for i := range cs {
		switch cs[i].Header.Type {
		case unix.SCM_RIGHTS:
			if fds, err = unix.ParseUnixRights(&cs[i]); err != nil {
				t.Fatal(err)
			}
			for _, f := range fds {
				t.Cleanup(func() { unix.Close(f) })
			}
		case unix.SCM_CREDENTIALS:
			if cred, err = unix.ParseUnixCredentials(&cs[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return string(buf[:n.N]), from, fds, cred
}

// read1 expects the data of one receive.
func read1(t *testing.T, fd int, want string) {
	t.Helper()
	if got, _, _, _ := next(t, fd, max(len(want)+100, 10)); got != want {
		if len(got) > 60 {
			got = got[:60] + "…"
		}
		t.Errorf("received %q (wanted %d bytes)", got, len(want))
	}
}

func write1(t *testing.T, fd int, data string) {
	t.Helper()
	if _, err := unix.SendmsgN(fd, []byte(data), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT); err != nil {
		t.Errorf("send: %v", err)
	}
}

func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

const again = "resource temporarily unavailable"

// Some of what the tests set up only root may.
var (
	long   = strings.Repeat("0123456789abcdef", pick(9000, 3000)) // 144000 bytes
	longer = strings.Repeat("x", pick(200<<10, 50<<10))
)

func pick[T any](root, other T) T {
	if asRoot {
		return root
	}
	return other
}

func init() {
	fileChildren["unix-stream"] = func() {
		pairAt(unix.SOCK_STREAM, 10, 11)
		sendTo(10, "to eleven", nil)
		sendTo(11, long, nil)
		pairAt(unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 12, 13) // descriptors in flight
		var p [2]int
		must(unix.Pipe(p[:]))
		must1(unix.Write(p[1], []byte("in a pipe")))
		sendTo(12, "before ", nil)
		sendTo(12, "one", unix.UnixRights(p[0], p[1]))
		sendTo(12, "two", unix.UnixRights(10))   // a socket that is open too
		sendTo(12, "three", unix.UnixRights(13)) // its own receiver
		sendTo(12, " and after", nil)
		must(unix.Close(p[0]))
		must(unix.Close(p[1]))
		pairAt(unix.SOCK_STREAM, 14, 15)
		must(unix.Shutdown(14, unix.SHUT_WR))
		pairAt(unix.SOCK_STREAM, 16, 17) // closed with data left
		sendTo(17, "last words", nil)
		must(unix.Close(17))
		pairAt(unix.SOCK_STREAM, 18, 19) // reset
		sendTo(18, "never read", nil)
		sendTo(19, "read later", nil)
		must(unix.Close(19))
		pairAt(unix.SOCK_STREAM, 20, 21)
		must(unix.Shutdown(20, unix.SHUT_RD))
		socketAt(unix.AF_UNIX, unix.SOCK_STREAM, 22)
	}
}

func TestUnixStream(t *testing.T) {
	socketCase(t, "unix-stream", func(t *testing.T, fd func(int) int) {
		write1(t, fd(10), " more")
		read1(t, fd(11), "to eleven more")
		read1(t, fd(10), long)
		read1(t, fd(10), again)
		write1(t, fd(11), "back")
		read1(t, fd(10), "back")

		// A stream does not glue messages behind descriptors.
		in := fd(13)
		data, _, fds, _ := next(t, in, 100)
		if data != "before one" || len(fds) != 2 {
			t.Fatalf("%q with descriptors %v", data, fds)
		}
		b := make([]byte, 100)
		if n, err := unix.Read(fds[0], b); string(b[:max(n, 0)]) != "in a pipe" {
			t.Errorf("pipe in flight: %q %v", b[:max(n, 0)], err)
		}
		data, _, fds, _ = next(t, in, 100)
		if data != "two" || len(fds) != 1 || inode(t, fds[0]) != inode(t, fd(10)) {
			t.Fatalf("%q with descriptors %v", data, fds)
		}
		data, _, fds, _ = next(t, in, 100)
		if data != "three" || len(fds) != 1 || inode(t, fds[0]) != inode(t, in) {
			t.Fatalf("%q with descriptors %v", data, fds)
		}
		read1(t, in, " and after")
		read1(t, in, again)

		read1(t, fd(15), "")
		write1(t, fd(15), "other way")
		read1(t, fd(14), "other way")
		if _, err := unix.SendmsgN(fd(14), []byte("x"), nil, nil, unix.MSG_NOSIGNAL); err != unix.EPIPE {
			t.Errorf("send after shutdown: %v", err)
		}

		read1(t, fd(16), "last words")
		read1(t, fd(16), "")
		p := []unix.PollFd{{Fd: int32(fd(18)), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, 0); err != nil || p[0].Revents != unix.POLLIN|unix.POLLERR|unix.POLLHUP {
			t.Errorf("reset: poll %#x %v", p[0].Revents, err)
		}
		read1(t, fd(18), "read later")
		read1(t, fd(18), "connection reset by peer")
		read1(t, fd(18), "")
		if _, err := unix.SendmsgN(fd(21), []byte("x"), nil, nil, unix.MSG_NOSIGNAL); err != unix.EPIPE {
			t.Errorf("send to one that reads no more: %v", err)
		}
		write1(t, fd(20), "still")
		read1(t, fd(21), "still")
		if _, err := unix.Getpeername(fd(22)); err != unix.ENOTCONN {
			t.Errorf("never connected: %v", err)
		}
		for _, n := range []int{10, 12} {
			fl, err := unix.FcntlInt(uintptr(fd(n)), unix.F_GETFL, 0)
			if err != nil || (fl&unix.O_NONBLOCK != 0) != (n == 12) {
				t.Errorf("fd %d: flags %#o %v", n, fl, err)
			}
		}
	})
}

func init() {
	fileChildren["unix-oob"] = func() {
		for i, inline := range []int{0, 1} {
			n := 10 + 10*i
			for j := range 3 {
				a, b := n+2*j, n+2*j+1
				pairAt(unix.SOCK_STREAM, a, b)
				must(unix.SetsockoptInt(b, unix.SOL_SOCKET, unix.SO_OOBINLINE, inline))
				if j != 0 {
					sendTo(a, "front", nil)
				}
				must(unix.Sendmsg(a, []byte("!"), nil, nil, unix.MSG_OOB))
				if j != 2 {
					sendTo(a, "behind", nil)
				}
			}
		}
	}
}

func TestUnixUrgent(t *testing.T) {
	socketCase(t, "unix-oob", func(t *testing.T, fd func(int) int) {
		for _, n := range []int{11, 13, 15} {
			first := n == 11
			if at, err := unix.IoctlGetInt(fd(n), unix.SIOCATMARK); err != nil || (at != 0) != first {
				t.Errorf("fd %d: at the mark %d %v", n, at, err)
			}
			if !first {
				read1(t, fd(n), "front")
			}
			b := make([]byte, 2)
			if k, _, err := unix.Recvfrom(fd(n), b, unix.MSG_OOB|unix.MSG_DONTWAIT); err != nil || string(b[:k]) != "!" {
				t.Errorf("fd %d: urgent %q %v", n, b[:max(k, 0)], err)
			}
			if n != 15 {
				read1(t, fd(n), "behind")
			}
			read1(t, fd(n), again)
		}
		for _, n := range []int{21, 23, 25} {
			if n != 21 {
				read1(t, fd(n), "front")
			}
			if at, err := unix.IoctlGetInt(fd(n), unix.SIOCATMARK); err != nil || at == 0 {
				t.Errorf("fd %d: not at the mark: %v", n, err)
			}
			if n != 25 {
				read1(t, fd(n), "!behind")
			} else {
				read1(t, fd(n), "!")
			}
			read1(t, fd(n), again)
		}
	})
}

func init() {
	fileChildren["unix-packets"] = func() {
		for i, typ := range []int{unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
			a, b := 10+10*i, 11+10*i
			pairAt(typ, a, b)
			must(unix.SetsockoptInt(a, unix.SOL_SOCKET, pick(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF), 1<<20))
			sendTo(a, "one", nil)
			sendTo(a, "", nil)
			sendTo(a, long, nil)
			sendTo(a, "with", unix.UnixRights(0, 1))
			sendTo(a, longer, nil)
			sendTo(a, "last", nil)
			must(unix.SetsockoptInt(b, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 2))
			// Closed, with something left.
			pairAt(typ, a+2, b+2)
			sendTo(a+2, "left", nil)
			sendTo(a+2, "over", nil)
			must(unix.Close(a + 2))
		}
		pairAt(unix.SOCK_SEQPACKET, 30, 31)
		sendTo(30, "x", nil)
		must(unix.Shutdown(30, unix.SHUT_WR))
	}
}

func TestUnixPackets(t *testing.T) {
	socketCase(t, "unix-packets", func(t *testing.T, fd func(int) int) {
		for _, n := range []int{11, 21} {
			if off, err := unix.GetsockoptInt(fd(n), unix.SOL_SOCKET, unix.SO_PEEK_OFF); err != nil || off != 2 {
				t.Errorf("fd %d: SO_PEEK_OFF %d %v", n, off, err)
			}
			read1(t, fd(n), "one")
			read1(t, fd(n), "")
			read1(t, fd(n), long)
			if data, _, fds, _ := next(t, fd(n), 10); data != "with" || len(fds) != 2 {
				t.Errorf("%q with %v", data, fds)
			}
			read1(t, fd(n), longer)
			read1(t, fd(n), "last")
			read1(t, fd(n), again)
			write1(t, fd(n), "back")
			read1(t, fd(n-1), "back")
			read1(t, fd(n+2), "left")
			read1(t, fd(n+2), "over")
		}
		read1(t, fd(13), again)
		if _, err := unix.SendmsgN(fd(13), []byte("x"), nil, nil, 0); err != unix.ECONNREFUSED {
			t.Errorf("send to a closed peer: %v", err)
		}
		read1(t, fd(23), "")
		read1(t, fd(31), "x")
		read1(t, fd(31), "")
	})
}

func init() {
	fileChildren["unix-opts"] = func() {
		pairAt(unix.SOCK_STREAM, 10, 11)
		set := func(name, v int) { must(unix.SetsockoptInt(10, unix.SOL_SOCKET, name, v)) }
		set(unix.SO_SNDBUF, 10000)
		set(unix.SO_RCVBUF, 20000)
		set(unix.SO_PASSCRED, 1)
		set(unix.SO_PRIORITY, 5)
		set(unix.SO_RCVLOWAT, 3)
		if asRoot {
			set(unix.SO_MARK, 7)
		}
		set(unix.SO_TIMESTAMPNS, 1)
		set(unix.SO_PEEK_OFF, 1)
		set(unix.SO_BUF_LOCK, 1)
		must(unix.SetsockoptTimeval(10, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 3, Usec: 500000}))
		must(unix.SetsockoptLinger(10, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 9}))
		must(unix.Fchown(10, pick(77, os.Getuid()), pick(88, os.Getgid())))
		must(unix.Fchmod(10, 0o612))
		must(sys.SetFilter(11, []byte{6, 0, 0, 0, 0xff, 0xff, 0, 0})) // return 65535
	}
}

func TestUnixOptions(t *testing.T) {
	socketCase(t, "unix-opts", func(t *testing.T, fd func(int) int) {
		for name, want := range map[int]int{
			unix.SO_SNDBUF: 20000, unix.SO_RCVBUF: 40000, unix.SO_PASSCRED: 1, unix.SO_PRIORITY: 5, unix.SO_RCVLOWAT: 3,
			unix.SO_MARK: pick(7, 0), unix.SO_TIMESTAMPNS: 1, unix.SO_TIMESTAMP: 0, unix.SO_PEEK_OFF: 1, unix.SO_BUF_LOCK: 1,
		} {
			if v, err := unix.GetsockoptInt(fd(10), unix.SOL_SOCKET, name); err != nil || v != want {
				t.Errorf("option %d: %d %v, not %d", name, v, err, want)
			}
		}
		if tv, err := unix.GetsockoptTimeval(fd(10), unix.SOL_SOCKET, unix.SO_RCVTIMEO); err != nil || *tv != (unix.Timeval{Sec: 3, Usec: 500000}) {
			t.Errorf("SO_RCVTIMEO %v %v", tv, err)
		}
		b := make([]byte, 8)
		if _, err := sys.Getsockopt(fd(10), unix.SOL_SOCKET, unix.SO_LINGER, b); err != nil || !bytes.Equal(b, []byte{1, 0, 0, 0, 9, 0, 0, 0}) {
			t.Errorf("SO_LINGER %v %v", b, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd(10), &st); err != nil || int(st.Uid) != pick(77, os.Getuid()) || int(st.Gid) != pick(88, os.Getgid()) || st.Mode&0o7777 != 0o612 {
			t.Errorf("%d:%d %#o %v", st.Uid, st.Gid, st.Mode, err)
		}
		if f, err := sys.GetFilter(fd(11)); err != nil || !bytes.Equal(f, []byte{6, 0, 0, 0, 0xff, 0xff, 0, 0}) {
			t.Errorf("filter %v %v", f, err)
		}
	})
}

func TestUnixOutside(t *testing.T) {
	dir := t.TempDir()
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	log, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(log)
	must(unix.Bind(l, &unix.SockaddrUnix{Name: dir + "/l"}))
	must(unix.Bind(log, &unix.SockaddrUnix{Name: dir + "/log"}))
	must(unix.Listen(l, 5))
	c := startChildIn(t, "unix-outside", dir, nil)
	n, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(n)
	c.collect()
	comm, _ := procfs.ReadComm(os.Getpid(), 0)
	me := fmt.Sprintf("pid %d (%s), outside the tree", os.Getpid(), comm)
	reasons(t, c.refuse, "connected to "+me, "accepted by "+me)
	// The log's client comes back; the others would not.
	c.refuse.Err()
	for _, f := range c.dump.Files() {
		if f.FD == 12 && (f.Entry == nil || f.Entry.GetUsk().GetPeer() != 0) {
			t.Errorf("the client of a datagram server: %v", f.Entry)
		}
	}
}

func init() {
	fileChildren["unix-outside"] = func() {
		for i := range 2 {
			socketAt(unix.AF_UNIX, unix.SOCK_STREAM, 10+i)
			must(unix.Connect(10+i, &unix.SockaddrUnix{Name: "l"}))
		}
		socketAt(unix.AF_UNIX, unix.SOCK_DGRAM, 12)
		must(unix.Connect(12, &unix.SockaddrUnix{Name: "log"}))
	}
	fileChildren["unix-log"] = func() {
		socketAt(unix.AF_UNIX, unix.SOCK_DGRAM, 12)
		must(unix.Connect(12, &unix.SockaddrUnix{Name: "log"}))
	}
}

func TestUnixLogClient(t *testing.T) {
	dir := t.TempDir()
	log, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(log)
	must(unix.Bind(log, &unix.SockaddrUnix{Name: dir + "/log"}))
	c := startChildIn(t, "unix-log", dir, nil)
	c.collect()
	wd, _ := os.Getwd()
	must(os.Chdir(dir)) // the name is relative
	defer os.Chdir(wd)
	x := c.restore()
	write1(t, x.fd(12), "line")
	read1(t, log, "line")
}

func init() {
	fileChildren["unix-inflight"] = func() {
		pairAt(unix.SOCK_STREAM, 10, 11)
		fd := must1(unix.InotifyInit())
		ep := must1(unix.EpollCreate1(0))
		ufd := must1(unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0))
		sendTo(10, "x", unix.UnixRights(fd, ep, ufd))
	}
}

func TestUnixInFlightRefused(t *testing.T) {
	c := startChild(t, "unix-inflight").collect()
	reasons(t, c.refuse, fmt.Sprintf("pid %d (exe): socket:[", c.pid))
	if err := c.refuse.Err(); !strings.Contains(err.Error(), ", on its way in fd 11 (socket:[") {
		t.Error(err)
	}
}

func sockInfo(t *testing.T, fd int) (sockdiag.Unix, error) {
	t.Helper()
	return sockdiag.GetUnix(uint32(inode(t, fd)))
}
