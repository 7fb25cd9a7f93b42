package sockdiag

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func ino(t *testing.T, fd int) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

func find(t *testing.T, ino uint32) Unix {
	t.Helper()
	all, err := ListUnix()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		if u.Ino == ino {
			one, err := GetUnix(ino)
			if err != nil || one.Peer != u.Peer || !bytes.Equal(one.Name, u.Name) || one.RQueue != u.RQueue {
				t.Errorf("by inode %+v %v, in the listing %+v", one, err, u)
			}
			return u
		}
	}
	t.Fatalf("socket %d is not listed", ino)
	return Unix{}
}

func TestUnixPair(t *testing.T) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	if _, err := unix.Write(p[1], []byte("seven b")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Shutdown(p[1], unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	a, b := find(t, ino(t, p[0])), find(t, ino(t, p[1]))
	if a.Peer != b.Ino || b.Peer != a.Ino || a.RQueue != 7 || b.WQueue == 0 || a.State != 1 || a.Type != unix.SOCK_STREAM {
		t.Errorf("%+v\n%+v", a, b)
	}
	if a.Shutdown != 1 || b.Shutdown != 2 {
		t.Errorf("shutdown %d, %d", a.Shutdown, b.Shutdown)
	}
	unix.Close(p[1])
	if a = find(t, a.Ino); !a.HasPeer || a.Peer != 0 || a.Shutdown != 3 {
		t.Errorf("with its peer closed: %+v", a)
	}
	if _, err := GetUnix(b.Ino); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a closed socket: %v", err)
	}
}

func TestUnixListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	if err := errors.Join(unix.Bind(s, &unix.SockaddrUnix{Name: path}), unix.Listen(s, 7)); err != nil {
		t.Fatal(err)
	}
	var clients []uint32
	for range 3 {
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(c)
		if err := unix.Connect(c, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, ino(t, c))
	}
	u := find(t, ino(t, s))
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if string(u.Name) != path+"\x00" || !u.HasVFS || u.VFSIno != uint32(st.Ino) || u.VFSDev != unix.Major(st.Dev)<<20|unix.Minor(st.Dev) {
		t.Errorf("name %q, file %d on %#x; want %d on %#x", u.Name, u.VFSIno, u.VFSDev, st.Ino, st.Dev)
	}
	if u.State != 10 || u.RQueue != 3 || u.WQueue != 7 || len(u.Icons) != 3 || u.Icons[0] != clients[0] || u.Icons[1] != clients[1] || u.Icons[2] != clients[2] {
		t.Errorf("%+v, clients %v", u, clients)
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	src, dst := netip.MustParseAddrPort(s.LocalAddr().String()), netip.MustParseAddrPort(s.RemoteAddr().String())
	got, err := GetTCP(src, dst, 0)
	if err != nil || got.Src != src || got.Dst != dst || got.State != 1 || got.RQueue != 5 || got.Ino == 0 {
		t.Errorf("%+v %v, want %v %v", got, err, src, dst)
	}
	all, err := ListInet(unix.AF_INET, unix.IPPROTO_TCP, 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		if x.Src == src {
			return
		}
	}
	t.Errorf("the listener is not among %+v", all)
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte{}, byte(0))
	f.Add(append([]byte{unix.AF_UNIX, 1, 1, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0}, 8, 0, 2, 0, 9, 9, 9, 9), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, which byte) {
		if which&1 == 0 && len(b) > 0 {
			b[0] = []byte{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_PACKET}[which>>1&3]
		}
		_, _ = ParseUnix(b)
		_, _ = ParseInet(b)
		_, _ = ParsePacket(b)
		_, _ = messages(b, 1, func([]byte) error { return nil })
	})
}
