package netlock

import (
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// alone moves the test into a network namespace of its own, with loopback.
func alone(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("a network namespace: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		t.Fatal(err)
	}
}

// tcp makes a connection in the thread's namespace.
func tcp(t *testing.T, family int, addr unix.Sockaddr) (a, b int, c Conn) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	defer unix.Close(l)
	check(unix.Bind(l, addr))
	check(unix.Listen(l, 1))
	to, err := unix.Getsockname(l)
	check(err)
	a, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	check(unix.Connect(a, to))
	b, _, err = unix.Accept(l)
	check(err)
	t.Cleanup(func() { unix.Close(a); unix.Close(b) })
	own, err := unix.Getsockname(a)
	check(err)
	return a, b, Conn{addrPort(own), addrPort(to)}
}

func addrPort(sa unix.Sockaddr) End {
	switch x := sa.(type) {
	case *unix.SockaddrInet4:
		return End{x.Addr[:], uint16(x.Port)}
	case *unix.SockaddrInet6:
		return End{x.Addr[:], uint16(x.Port)}
	}
	return End{}
}

// arrives tells whether what is sent by one is read by the other within d.
func arrives(t *testing.T, from, to int, d time.Duration) bool {
	t.Helper()
	if _, err := unix.Write(from, []byte{'x'}); err != nil {
		t.Fatal(err)
	}
	return waits(to, d)
}

func waits(fd int, d time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, _ := unix.Poll(p, int(d.Milliseconds()))
	var b [16]byte
	if n > 0 {
		_, _ = unix.Read(fd, b[:])
	}
	return n > 0
}

func TestLock(t *testing.T) {
	for _, x := range []struct {
		name   string
		family int
		addr   unix.Sockaddr
	}{
		{"IPv4", unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}},
		{"IPv6", unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte(net.IPv6loopback)}},
	} {
		t.Run(x.name, func(t *testing.T) {
			alone(t)
			a, b, c := tcp(t, x.family, x.addr)
			free, other, _ := tcp(t, x.family, x.addr)
			name := NewName()
			err := Lock(name, []Conn{c})
			if errors.Is(err, ErrUnsupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := Lock(name, nil); !errors.Is(err, unix.EEXIST) {
				t.Errorf("a second lock of that name: %v", err)
			}
			if all, err := List(); err != nil || len(all) != 1 || all[0] != name {
				t.Errorf("locks: %q, %v", all, err)
			}
			if !arrives(t, free, other, 5*time.Second) {
				t.Error("another connection is locked too")
			}
			if arrives(t, a, b, 100*time.Millisecond) || arrives(t, b, a, 100*time.Millisecond) {
				t.Error("a locked connection carries data")
			}
			if err := Unlock(name); err != nil {
				t.Fatal(err)
			}
			if all, err := List(); err != nil || len(all) != 0 {
				t.Errorf("locks: %q, %v", all, err)
			}
			// It is sent again.
			if !waits(b, 5*time.Second) || !waits(a, 5*time.Second) {
				t.Error("an unlocked connection carries no data")
			}
			if err := Unlock(name); err != nil {
				t.Errorf("a lock that is not there: %v", err)
			}
		})
	}
}

func TestForeignName(t *testing.T) {
	if err := Unlock("filter"); err == nil {
		t.Error("a table of somebody else's would be removed")
	}
}
