package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

func bindAt(fd int, name string) { must(unix.Bind(fd, &unix.SockaddrUnix{Name: name})) }

func init() {
	fileChildren["unix-names"] = func() {
		wd := must1(os.Getwd())
		abstract := fmt.Sprintf("@fermata test\x00%d", os.Getpid())
		unix.Umask(0)
		for i, name := range []string{wd + "/absolute", "relative", abstract, "sub/../deep", wd + "/gone", "moved"} {
			l, c, a := 10+10*i, 11+10*i, 12+10*i
			if strings.HasPrefix(name, "sub") {
				must(os.Mkdir("sub", 0o755))
			}
			socketAt(unix.AF_UNIX, []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET}[i&1], l)
			bindAt(l, name)
			must(unix.Listen(l, 20+i))
			for j := range 2 { // one accepted connection, one not accepted
				socketAt(unix.AF_UNIX, []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET}[i&1], c+2*j)
				must(unix.Connect(c+2*j, &unix.SockaddrUnix{Name: name}))
				if j == 0 {
					fd, _, err := unix.Accept(l)
					as(a, fd, err)
				}
			}
			sendTo(c, "queued", nil)
			// Another one, whose client has left.
			socketAt(unix.AF_UNIX, []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET}[i&1], l+5)
			must(unix.Connect(l+5, &unix.SockaddrUnix{Name: name}))
			fd := -1
			for fd < 0 { // the client in between goes to the end of the queue
				n, _, err := unix.Accept(l)
				must(err)
				fd = n
				break
			}
			as(l+4, fd, nil)
			switch i {
			case 0:
				must(os.Chmod(name, 0o640))
				must(os.Chown(name, pick(12, os.Getuid()), pick(34, os.Getgid())))
			case 4:
				must(os.Remove(name))
			case 5:
				must(os.Rename("moved", "away"))
			}
		}
		must(os.Remove("sub"))
		// A client with a name of its own, and one socket that is only bound.
		socketAt(unix.AF_UNIX, unix.SOCK_STREAM, 80)
		bindAt(80, "client")
		must(unix.Connect(80, &unix.SockaddrUnix{Name: wd + "/absolute"}))
		// Unnamed, and bound only.
		socketAt(unix.AF_UNIX, unix.SOCK_STREAM, 81)
		bindAt(81, "bound")
		// By the kernel's choice.
		socketAt(unix.AF_UNIX, unix.SOCK_DGRAM, 82)
		must(sys.Bind(82, []byte{unix.AF_UNIX, 0}))
		// A listener that is closed, while its connections live.
		socketAt(unix.AF_UNIX, unix.SOCK_STREAM, 83)
		bindAt(83, "left")
		must(unix.Listen(83, 1))
		socketAt(unix.AF_UNIX, unix.SOCK_STREAM, 84)
		must(unix.Connect(84, &unix.SockaddrUnix{Name: "left"}))
		fd, _, err := unix.Accept(83)
		as(85, fd, err)
		must(unix.Close(83))
	}
}

func names(t *testing.T, fd int) (own, peer string) {
	t.Helper()
	sa, err := sys.Sockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	own = string(sa[2:])
	if sa, err = sys.Peername(fd); err != nil {
		return own, err.Error()
	}
	return own, string(sa[2:])
}

func TestUnixNames(t *testing.T) {
	dir := ""
	check := func(t *testing.T, fd func(int) int) {
		for i, name := range []string{dir + "/absolute\x00", "relative\x00", "@", "sub/../deep\x00", dir + "/gone\x00", "moved\x00"} {
			l, c, a := 10+10*i, 11+10*i, 12+10*i
			own, _ := names(t, fd(l))
			if name == "@" {
				if !strings.HasPrefix(own, "\x00fermata test\x00") {
					t.Errorf("abstract name %q", own)
				}
				name = own
			}
			if own != name {
				t.Errorf("name %q, not %q", own, name)
			}
			if o, p := names(t, fd(c)); o != "" || p != name {
				t.Errorf("client of %q: %q %q", name, o, p)
			}
			if o, p := names(t, fd(a)); o != name || p != "" {
				t.Errorf("accepted by %q: %q %q", name, o, p)
			}
			read1(t, fd(a), "queued")
			write1(t, fd(a), "answer")
			read1(t, fd(c), "answer")
			u, err := sockInfo(t, fd(l))
			if err != nil || u.State != stateListen || int(u.WQueue) != 20+i || len(u.Icons) != 1+btoi(i == 0) {
				t.Errorf("listener %q: %+v %v", name, u, err)
			}
			// Whoever waits is accepted now.
			if err := unix.SetNonblock(fd(l), true); err != nil {
				t.Fatal(err)
			}
			n, _, err := unix.Accept(fd(l))
			if err != nil {
				t.Fatalf("%q: %v", name, err)
			}
			write1(t, n, "welcome")
			read1(t, fd(l+5), "welcome")
			unix.Close(n)
			// New ones find it where it was.
			path := strings.TrimSuffix(name, "\x00")
			switch {
			case name[0] == 0:
				path = "@" + name[1:]
			case i == 4:
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the removed file: %v", err)
				}
				continue
			case i == 5:
				path = dir + "/away"
			case i == 3:
				path = dir + "/deep"
			case name[0] != '/':
				path = dir + "/" + path
			}
			s, err := unix.Socket(unix.AF_UNIX, []int{unix.SOCK_STREAM, unix.SOCK_SEQPACKET}[i&1], 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(s)
			if err := unix.Connect(s, &unix.SockaddrUnix{Name: path}); err != nil {
				t.Errorf("connecting to %q: %v", path, err)
			}
		}
		var st unix.Stat_t
		if err := unix.Lstat(dir+"/absolute", &st); err != nil || st.Mode != unix.S_IFSOCK|0o640 || int(st.Uid) != pick(12, os.Getuid()) || int(st.Gid) != pick(34, os.Getgid()) {
			t.Errorf("file %#o of %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
		}
		if o, p := names(t, fd(80)); o != "client\x00" || p != dir+"/absolute\x00" {
			t.Errorf("named client: %q %q", o, p)
		}
		if o, _ := names(t, fd(81)); o != "bound\x00" {
			t.Errorf("bound only: %q", o)
		}
		if o, _ := names(t, fd(82)); len(o) != 6 || o[0] != 0 {
			t.Errorf("autobound: %q", o)
		}
		if o, p := names(t, fd(84)); o != "" || p != "left\x00" {
			t.Errorf("client of a closed listener: %q %q", o, p)
		}
		write1(t, fd(84), "hello")
		read1(t, fd(85), "hello")
	}
	c := startChild(t, "unix-names")
	dir = c.dir
	c.collect()
	before, err := os.Lstat(filepath.Join(dir, "bound"))
	if err != nil {
		t.Fatal(err)
	}
	im := c.image()
	_ = im
	x := c.restore()
	if o, err := os.Lstat(filepath.Join(dir, "bound")); err != nil || !os.SameFile(before, o) {
		t.Errorf("a file was changed before the restore is sure: %v", err)
	}
	must(x.Commit())
	check(t, x.fd)
	left, err := filepath.Glob(filepath.Join(c.dir, ".fermata*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func init() {
	fileChildren["unix-dgram"] = func() {
		socketAt(unix.AF_UNIX, unix.SOCK_DGRAM, 10) // a server
		bindAt(10, "server")
		send := func(fd int, data string) {
			must(unix.Sendto(fd, []byte(data), 0, &unix.SockaddrUnix{Name: "server"}))
		}
		socketAt(unix.AF_UNIX, unix.SOCK_DGRAM, 11)
		bindAt(11, "@fermata dgram "+fmt.Sprint(os.Getpid()))
		send(11, "from eleven")
		gone := must1(unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0))
		bindAt(gone, "gone")
		send(gone, "from who is gone")
		must(unix.Close(gone))
		socketAt(unix.AF_UNIX, unix.SOCK_DGRAM, 12)
		send(12, "from nobody")
		must(unix.Connect(12, &unix.SockaddrUnix{Name: "server"}))
		// A chain: 13 -> 14 -> 15, where 14 has messages of a third.
		for _, n := range []int{15, 14, 13} {
			socketAt(unix.AF_UNIX, unix.SOCK_DGRAM, n)
			bindAt(n, fmt.Sprint("n", n))
		}
		must(unix.Sendto(11, []byte("before"), 0, &unix.SockaddrUnix{Name: "n14"}))
		must(unix.Connect(13, &unix.SockaddrUnix{Name: "n14"}))
		must1(unix.Write(13, []byte("by the chain")))
		must(unix.Connect(14, &unix.SockaddrUnix{Name: "n15"}))
		// A pair, one half of which went elsewhere.
		pairAt(unix.SOCK_DGRAM, 16, 17)
		must(unix.Connect(17, &unix.SockaddrUnix{Name: "server"}))
		sendTo(17, "from the half", nil)
		// Connected to itself.
		socketAt(unix.AF_UNIX, unix.SOCK_DGRAM, 18)
		bindAt(18, "self")
		must(unix.Connect(18, &unix.SockaddrUnix{Name: "self"}))
		sendTo(18, "to myself", nil)
		// Connected to one that was closed.
		gone = must1(unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0))
		bindAt(gone, "gone too")
		socketAt(unix.AF_UNIX, unix.SOCK_DGRAM, 19)
		bindAt(19, "nineteen")
		must(unix.Connect(19, &unix.SockaddrUnix{Name: "gone too"}))
		must(unix.Close(gone))
		must(unix.SetsockoptInt(10, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
		me := unix.UnixCredentials(&unix.Ucred{Pid: int32(pick(os.Getppid(), os.Getpid())), Uid: uint32(pick(123, os.Getuid())), Gid: uint32(pick(45, os.Getgid()))})
		must(unix.Sendmsg(11, []byte("with credentials"), me, &unix.SockaddrUnix{Name: "server"}, 0))
	}
}

func TestUnixDatagram(t *testing.T) {
	socketCase(t, "unix-dgram", func(t *testing.T, fd func(int) int) {
		expect := func(n int, data, from string) {
			t.Helper()
			d, f, _, _ := next(t, fd(n), 100)
			if d != data || (f != from && !(strings.HasPrefix(from, "\x00") && strings.HasPrefix(f, from))) {
				t.Errorf("fd %d: %q from %q, not %q from %q", n, d, f, data, from)
			}
		}
		expect(10, "from eleven", "\x00fermata dgram")
		expect(10, "from who is gone", "gone\x00")
		expect(10, "from nobody", "")
		expect(10, "from the half", "")
		if d, _, _, cred := next(t, fd(10), 100); d != "with credentials" || cred == nil || (asRoot && *cred != unix.Ucred{Pid: int32(os.Getpid()), Uid: 123, Gid: 45}) {
			t.Errorf("%q with %+v", d, cred)
		}
		expect(10, again, "")
		write1(t, fd(12), "connected")
		expect(10, "connected", "")
		expect(14, "before", "\x00fermata dgram")
		expect(14, "by the chain", "n13\x00")
		// The chain is broken: 14 hears 15 only.
		if _, err := unix.SendmsgN(fd(13), []byte("again"), nil, nil, 0); err != unix.EPERM {
			t.Errorf("to one that is connected elsewhere: %v", err)
		}
		write1(t, fd(14), "on")
		expect(14, again, "")
		expect(15, "on", "n14\x00")
		write1(t, fd(17), "half")
		expect(10, "half", "")
		expect(18, "to myself", "self\x00")
		if _, err := unix.SendmsgN(fd(19), []byte("x"), nil, nil, 0); err != unix.ECONNREFUSED {
			t.Errorf("to one that is closed: %v", err)
		}
	})
}

func TestUnixConflicts(t *testing.T) {
	c := startChild(t, "unix-names")
	c.collect()
	// While the program lives, everything it has is taken.
	x := c.prepare(FilesStrict)
	got := x.Refuse.Err()
	for _, want := range []string{"another socket is bound to " + c.dir + "/absolute, of pid", "its name is taken by pid"} {
		if got == nil || !strings.Contains(got.Error(), want) {
			t.Errorf("%v does not say %q", got, want)
		}
	}
	c.kill()
	must(os.Remove(c.dir + "/relative"))
	must(os.WriteFile(c.dir+"/relative", nil, 0o644))
	x = c.prepare(FilesStrict)
	reasons(t, x.Refuse, "relative is now a regular file")
}
