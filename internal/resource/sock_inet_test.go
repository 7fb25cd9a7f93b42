package resource

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/sys"
)

func loop4(port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}
func loop6(port int) *unix.SockaddrInet6 {
	return &unix.SockaddrInet6{Port: port, Addr: netip.IPv6Loopback().As16()}
}

func portOf(fd int) int {
	sa := must1(unix.Getsockname(fd))
	if a, ok := sa.(*unix.SockaddrInet6); ok {
		return a.Port
	}
	return sa.(*unix.SockaddrInet4).Port
}

// listenAt makes a listener.
func listenAt(n, domain, backlog int) {
	socketAt(domain, unix.SOCK_STREAM, n)
	if domain == unix.AF_INET {
		must(unix.Bind(n, loop4(0)))
	} else {
		must(unix.Bind(n, loop6(0)))
	}
	must(unix.Listen(n, backlog))
}

func connectAt(n, domain, port int) {
	socketAt(domain, unix.SOCK_STREAM, n)
	if domain == unix.AF_INET {
		must(unix.Connect(n, loop4(port)))
	} else {
		must(unix.Connect(n, loop6(port)))
	}
}

// tcpPair makes a connection, its listener closed.
func tcpPair(domain, client, server int) {
	listenAt(199, domain, 1)
	connectAt(client, domain, portOf(199))
	fd, _, err := unix.Accept(199)
	as(server, fd, err)
	must(unix.Close(199))
}

func init() {
	fileChildren["tcp"] = func() {
		for i, d := range []int{unix.AF_INET, unix.AF_INET6} {
			tcpPair(d, 10+10*i, 11+10*i)
			sendTo(10+10*i, "to the server", nil)
			sendTo(11+10*i, long, nil)
		}
		// A listener with a connection on its port, another waiting.
		listenAt(12, unix.AF_INET, 5)
		must(unix.SetNonblock(12, true))
		connectAt(13, unix.AF_INET, portOf(12))
		fd, _, err := unix.Accept(12)
		as(14, fd, err)
		connectAt(15, unix.AF_INET, portOf(12))
		// IPv4 over a socket of IPv6.
		socketAt(unix.AF_INET6, unix.SOCK_STREAM, 16)
		must(unix.Bind(16, &unix.SockaddrInet6{}))
		must(unix.Listen(16, 77))
		connectAt(17, unix.AF_INET, portOf(16))
		fd, _, err = unix.Accept(16)
		as(18, fd, err)
		sendTo(18, "mapped", nil)
		// Half closed, and closed by the peer with data left.
		tcpPair(unix.AF_INET, 22, 23)
		sendTo(22, "the end", nil)
		must(unix.Shutdown(22, unix.SHUT_WR))
		tcpPair(unix.AF_INET6, 24, 25)
		sendTo(24, "last words", nil)
		must(unix.Close(24))
		// Closed by both with data left.
		tcpPair(unix.AF_INET, 26, 27)
		sendTo(26, "a", nil)
		sendTo(27, "b", nil)
		must(unix.Shutdown(26, unix.SHUT_WR))
		must(unix.Shutdown(27, unix.SHUT_WR))
		// Shut down for reading only.
		tcpPair(unix.AF_INET, 28, 29)
		must(unix.Shutdown(28, unix.SHUT_RD))
		// Reset, with data left; and refused, told and not.
		tcpPair(unix.AF_INET, 30, 31)
		sendTo(31, "before the reset", nil)
		must(unix.SetsockoptLinger(31, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
		must(unix.Close(31))
		for n := 32; n < 34; n++ {
			nobody := must1(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0))
			must(unix.Bind(nobody, loop4(0)))
			socketAt(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, n)
			if err := unix.Connect(n, loop4(portOf(nobody))); err != unix.EINPROGRESS {
				must(err)
			}
			must(unix.Close(nobody))
		}
		must1(unix.GetsockoptInt(33, unix.SOL_SOCKET, unix.SO_ERROR))
		// Bound, and nothing yet.
		socketAt(unix.AF_INET, unix.SOCK_STREAM, 34)
		must(unix.Bind(34, loop4(0)))
		socketAt(unix.AF_INET6, unix.SOCK_STREAM, 35)
		time.Sleep(20 * time.Millisecond)
	}
}

func tcpInfo(t *testing.T, fd int) *unix.TCPInfo {
	t.Helper()
	i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestTCP(t *testing.T) {
	t.Run("repaired", checkTCP)
	t.Run("handshake", func(t *testing.T) {
		// Without privilege over the network: the part of the restore that
		// other users see.
		was := mayRepair
		mayRepair = func() bool { return false }
		defer func() { mayRepair = was }()
		checkTCP(t)
	})
}

func checkTCP(t *testing.T) {
	ports := map[int][2]int{}
	socketCase(t, "tcp", func(t *testing.T, fd func(int) int) {
		left := strings.HasSuffix(t.Name(), "/left")
		for _, n := range []int{10, 11, 12, 13, 14, 16, 17, 18, 20, 21, 22, 34} {
			now := [2]int{portOf(fd(n)), 0}
			if sa, err := unix.Getpeername(fd(n)); err == nil {
				switch a := sa.(type) {
				case *unix.SockaddrInet4:
					now[1] = a.Port
				case *unix.SockaddrInet6:
					now[1] = a.Port
				}
			}
			if left {
				ports[n] = now
			} else if ports[n] != now {
				t.Errorf("fd %d: ports %v, were %v", n, now, ports[n])
			}
		}
		for _, n := range []int{10, 20} {
			read1(t, fd(n+1), "to the server")
			var got []byte
			for buf := make([]byte, 1<<20); len(got) < len(long); {
				if err := await(fd(n), unix.POLLIN); err != nil {
					t.Fatalf("fd %d: %d of %d bytes: %v", n, len(got), len(long), err)
				}
				k, _, err := unix.Recvfrom(fd(n), buf, unix.MSG_DONTWAIT)
				if err != nil || k == 0 {
					t.Fatalf("fd %d: %d of %d bytes: %v", n, len(got), len(long), err)
				}
				got = append(got, buf[:k]...)
			}
			if string(got) != long {
				t.Errorf("fd %d: other bytes than were sent", n)
			}
			write1(t, fd(n), "on")
			await(fd(n+1), unix.POLLIN)
			read1(t, fd(n+1), "on")
		}
		if i := tcpInfo(t, fd(12)); i.State != stateListen || i.Sacked != 5 || i.Unacked != 1 {
			t.Errorf("listener: state %d, backlog %d, %d waiting", i.State, i.Sacked, i.Unacked)
		}
		write1(t, fd(13), "accepted")
		await(fd(14), unix.POLLIN)
		read1(t, fd(14), "accepted")
		n, _, err := unix.Accept(fd(12))
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(n)
		// Nothing of it may keep the port.
		must(unix.SetsockoptLinger(n, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
		write1(t, fd(15), "waited")
		await(n, unix.POLLIN)
		read1(t, n, "waited")
		if i := tcpInfo(t, fd(16)); i.State != stateListen || i.Sacked != 77 {
			t.Errorf("listener: state %d, backlog %d", i.State, i.Sacked)
		}
		read1(t, fd(17), "mapped")

		read1(t, fd(23), "the end")
		read1(t, fd(23), "")
		write1(t, fd(23), "back")
		await(fd(22), unix.POLLIN)
		read1(t, fd(22), "back")
		if s := tcpInfo(t, fd(22)).State; s != stateFinWait2 {
			t.Errorf("half closed: state %d", s)
		}
		if s := tcpInfo(t, fd(23)).State; s != stateCloseWait {
			t.Errorf("half closed, other end: state %d", s)
		}
		read1(t, fd(25), "last words")
		read1(t, fd(25), "")
		if s := tcpInfo(t, fd(25)).State; s != stateCloseWait {
			t.Errorf("closed by the peer: state %d", s)
		}
		for n, want := range map[int]string{26: "b", 27: "a"} {
			read1(t, fd(n), want)
			read1(t, fd(n), "")
			if _, err := unix.SendmsgN(fd(n), []byte("x"), nil, nil, unix.MSG_NOSIGNAL); err != unix.EPIPE {
				t.Errorf("closed by both: %v", err)
			}
		}
		read1(t, fd(28), "")
		write1(t, fd(28), "still")
		await(fd(29), unix.POLLIN)
		read1(t, fd(29), "still")

		events := func(n int) int16 {
			p := []unix.PollFd{{Fd: int32(fd(n)), Events: unix.POLLIN}}
			unix.Poll(p, 0)
			return p[0].Revents
		}
		if e := events(30); e != unix.POLLIN|unix.POLLERR|unix.POLLHUP {
			t.Errorf("reset: events %#x", e)
		}
		read1(t, fd(30), "before the reset")
		read1(t, fd(30), "connection reset by peer")
		read1(t, fd(30), "")
		if e, err := unix.GetsockoptInt(fd(32), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != int(unix.ECONNREFUSED) {
			t.Errorf("refused: %v %v", unix.Errno(e), err)
		}
		if e := events(33); e&unix.POLLERR != 0 || e&unix.POLLHUP == 0 {
			t.Errorf("refused and told: events %#x", e)
		}
		if i := tcpInfo(t, fd(34)); i.State != stateClose {
			t.Errorf("bound: state %d", i.State)
		}
		if sa, err := unix.Getsockname(fd(35)); err != nil || sa.(*unix.SockaddrInet6).Port != 0 {
			t.Errorf("fresh: %v %v", sa, err)
		}
	})
}

// The connection is full both ways: read and not read, received and sent.
func init() {
	fileChildren["tcp-full"] = func() {
		tcpPair(unix.AF_INET, 10, 11)
		for _, n := range []int{10, 11} {
			must(unix.SetsockoptInt(n, unix.SOL_SOCKET, unix.SO_SNDBUF, 150000))
			must(unix.SetsockoptInt(n, unix.SOL_SOCKET, unix.SO_RCVBUF, 50000))
			if n == 11 { // one holds more than a new socket would
				must(unix.SetsockoptInt(n, unix.SOL_SOCKET, pick(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF), 1000000))
			}
			must(unix.SetsockoptInt(n, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			must(unix.SetNonblock(n, true))
		}
		for i := range 4 {
			for _, n := range []int{10, 11} {
				fill(n, i)
			}
			time.Sleep(10 * time.Millisecond)
		}
		must(unix.Shutdown(10, unix.SHUT_WR))
	}
}

// fill writes numbered lines until no more go in; the last one goes in whole.
func fill(n, round int) {
	for i := 0; ; i++ {
		line := []byte(strings.Repeat(string(rune('a'+(i+round)%26)), 999) + "\n")
		for len(line) > 0 {
			k, err := unix.Write(n, line)
			if err == unix.EAGAIN {
				return
			}
			must(err)
			line = line[k:]
		}
	}
}

func TestTCPFull(t *testing.T) {
	if !asRoot {
		c := startChild(t, "tcp-full")
		c.collect()
		reasons(t, c.refuse, "only who has CAP_NET_ADMIN can save them")
		return
	}
	var first [2][]byte
	socketCase(t, "tcp-full", func(t *testing.T, fd func(int) int) {
		left := strings.HasSuffix(t.Name(), "/left")
		for i, n := range []int{10, 11} {
			if r, err := unix.GetsockoptInt(fd(n), unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil || r != 1 {
				t.Errorf("SO_REUSEADDR %d %v", r, err)
			}
			// Both read at once, or the windows would never open.
			var got []byte
			buf := make([]byte, 1<<20)
			for {
				p := []unix.PollFd{{Fd: int32(fd(n)), Events: unix.POLLIN}}
				if k, _ := unix.Poll(p, 500); k == 0 {
					break
				}
				k, _, err := unix.Recvfrom(fd(n), buf, unix.MSG_DONTWAIT)
				if k <= 0 {
					if err != nil || n != 11 {
						t.Errorf("fd %d: end at %d bytes: %v", n, len(got), err)
					}
					break
				}
				got = append(got, buf[:k]...)
			}
			if len(got) < 200000 {
				t.Errorf("only %d bytes", len(got))
			}
			if left {
				first[i] = got
			} else if !bytes.Equal(first[i], got) {
				t.Errorf("fd %d: %d bytes instead of %d", n, len(got), len(first[i]))
			}
		}
	})
}

func init() {
	fileChildren["inet-opts"] = func() {
		tcpPair(unix.AF_INET, 10, 11)
		socketAt(unix.AF_INET6, unix.SOCK_DGRAM, 12)
		set := func(fd, level, name, v int) { must(unix.SetsockoptInt(fd, level, name, v)) }
		set(10, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77)
		set(10, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		set(10, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1234)
		set(10, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		set(10, unix.IPPROTO_IP, unix.IP_TOS, 0x10)
		set(10, unix.IPPROTO_IP, unix.IP_TTL, 33)
		set(10, unix.SOL_SOCKET, unix.SO_PRIORITY, 2)
		must(unix.SetsockoptString(10, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno"))
		set(12, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		set(12, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		set(12, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 9)
		set(12, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 11)
		set(12, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
		set(12, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000)
		must(unix.SetsockoptString(12, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"))
	}
}

func TestInetOptions(t *testing.T) {
	socketCase(t, "inet-opts", func(t *testing.T, fd func(int) int) {
		for _, o := range []struct{ fd, level, name, want int }{
			{10, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77}, {10, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {10, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1234},
			{10, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {10, unix.IPPROTO_IP, unix.IP_TOS, 0x10}, {10, unix.IPPROTO_IP, unix.IP_TTL, 33},
			{10, unix.SOL_SOCKET, unix.SO_PRIORITY, 2}, {11, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0}, {11, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0},
			{12, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1}, {12, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1}, {12, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 9},
			{12, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 11}, {12, unix.SOL_SOCKET, unix.SO_BROADCAST, 1}, {12, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000},
		} {
			if v, err := unix.GetsockoptInt(fd(o.fd), o.level, o.name); err != nil || v != o.want {
				t.Errorf("fd %d option %d/%d: %d %v, not %d", o.fd, o.level, o.name, v, err, o.want)
			}
		}
		if s, err := unix.GetsockoptString(fd(10), unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil || s != "reno" {
			t.Errorf("congestion control %q %v", s, err)
		}
		if s, err := unix.GetsockoptString(fd(12), unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err != nil || s != "lo" {
			t.Errorf("device %q %v", s, err)
		}
	})
}

func init() {
	fileChildren["udp"] = func() {
		socketAt(unix.AF_INET, unix.SOCK_DGRAM, 10)
		must(unix.Bind(10, loop4(0)))
		socketAt(unix.AF_INET, unix.SOCK_DGRAM, 11)
		must(unix.Connect(11, loop4(portOf(10))))
		gone := must1(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0))
		must(unix.Bind(gone, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 2}}))
		for _, x := range []string{"one", "", long[:40000], "last"} {
			must1(unix.Write(11, []byte(x)))
			must(unix.Sendto(gone, []byte("gone "+x), 0, loop4(portOf(10))))
		}
		must(unix.Close(gone))
		must(unix.Connect(10, loop4(portOf(11)))) // with others' datagrams in the queue
		socketAt(unix.AF_INET6, unix.SOCK_DGRAM, 12)
		must(unix.SetsockoptInt(12, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
		must(unix.Bind(12, &unix.SockaddrInet6{}))
		must(unix.Sendto(must1(unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)), []byte("mapped"), 0, &unix.SockaddrInet4{Port: portOf(12), Addr: [4]byte{127, 0, 0, 9}}))
		// Groups: of any source, of one, and of IPv6.
		group := [4]byte{239, 1, 2, byte(os.Getpid())}
		must(unix.SetsockoptIPMreqn(10, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group, Ifindex: 1}))
		must(sys.Setsockopt(11, unix.IPPROTO_IP, unix.IP_ADD_SOURCE_MEMBERSHIP, []byte{239, 1, 3, group[3], 127, 0, 0, 1, 127, 0, 0, 7}))
		must(unix.SetsockoptIPv6Mreq(12, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: [16]byte{0xff, 1, 14: group[3], 15: 9}, Interface: 1}))
		socketAt(unix.AF_INET, unix.SOCK_DGRAM, 13)
		must(unix.Connect(13, loop4(portOf(10))))
		must(unix.Shutdown(13, unix.SHUT_RD))
	}
}

// groupsOf gives the groups a socket is in, with their filters.
func groupsOf(fd, domain int) []string {
	d := &Dump{values: map[any]any{}, Image: image.New()}
	f := &File{ID: 1}
	s := &inetSock{f: f, sock: &sock{domain: domain}}
	s.collectGroups(d, fd)
	var out []string
	for _, o := range d.sockExtra(f).GetOpts() {
		out = append(out, fmt.Sprintf("%d %x", o.GetLevel(), o.GetValue()))
	}
	return out
}

func TestUDP(t *testing.T) {
	var senders [2]string
	var groups [3][]string
	socketCase(t, "udp", func(t *testing.T, fd func(int) int) {
		for i, n := range []int{10, 11, 12} {
			now := groupsOf(fd(n), []int{unix.AF_INET, unix.AF_INET, unix.AF_INET6}[i])
			if groups[i] == nil {
				groups[i] = now
			}
			if len(now) != 1 || fmt.Sprint(now) != fmt.Sprint(groups[i]) {
				t.Errorf("fd %d: groups %v, were %v", n, now, groups[i])
			}
		}
		for _, x := range []string{"one", "", long[:40000], "last"} {
			for i, p := range []string{"", "gone "} {
				data, from, _, _ := next(t, fd(10), 1<<16)
				if data != p+x {
					t.Errorf("%.20q (%d bytes), not %.20q", data, len(data), p+x)
				}
				if senders[i] == "" {
					senders[i] = from
				}
				if from != senders[i] {
					t.Errorf("%.20q from %v, not %v", x, []byte(from), []byte(senders[i]))
				}
			}
		}
		read1(t, fd(10), again)
		write1(t, fd(11), "on")
		await(fd(10), unix.POLLIN)
		read1(t, fd(10), "on")
		write1(t, fd(10), "back")
		await(fd(11), unix.POLLIN)
		read1(t, fd(11), "back")
		oob, buf := make([]byte, 200), make([]byte, 100)
		n, err := sys.Recvmsg(fd(12), buf, oob, nil, unix.MSG_DONTWAIT)
		if err != nil || string(buf[:n.N]) != "mapped" {
			t.Fatalf("%q %v", buf[:n.N], err)
		}
		cs, err := unix.ParseSocketControlMessage(oob[:n.OOB])
		if err != nil || len(cs) != 1 || !bytes.Equal(cs[0].Data[:16], append(make([]byte, 10), 0xff, 0xff, 127, 0, 0, 9)) {
			t.Errorf("sent to %v %v", cs, err)
		}
		if sa, err := unix.Getpeername(fd(13)); err != nil || sa.(*unix.SockaddrInet4).Port != portOf(fd(10)) {
			t.Errorf("peer %v %v", sa, err)
		}
		p := []unix.PollFd{{Fd: int32(fd(13)), Events: unix.POLLRDHUP}}
		if unix.Poll(p, 0); p[0].Revents&unix.POLLRDHUP == 0 {
			t.Errorf("not shut down: %#x", p[0].Revents)
		}
	})
}

func init() {
	fileChildren["tcp-outside"] = func() {
		port := must1(os.ReadFile("port"))
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		as(10, fd, err)
		must(unix.Connect(10, loop4(int(port[0])<<8|int(port[1]))))
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		as(11, fd, err)
		must(unix.Connect(11, loop4(int(port[0])<<8|int(port[1]))))
		time.Sleep(10 * time.Millisecond)
	}
}

func TestTCPRefused(t *testing.T) {
	dir := t.TempDir()
	l := must1(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	defer unix.Close(l)
	must(unix.Bind(l, loop4(0)))
	must(unix.Listen(l, 5))
	port := portOf(l)
	must(os.WriteFile(filepath.Join(dir, "port"), []byte{byte(port >> 8), byte(port)}, 0o644))
	c := startChildIn(t, "tcp-outside", dir, nil)
	n, _, err := unix.Accept(l)
	must(err)
	defer unix.Close(n)
	c.collect()
	reasons(t, c.refuse, "of pid", "not accepted by whoever listens there")
}

func TestInetConflicts(t *testing.T) {
	c := startChild(t, "udp").collect()
	x := c.prepare(FilesStrict) // while the program lives
	err := x.Refuse.Err()
	comm := fmt.Sprintf("its port is taken by pid %d (exe)", c.pid)
	if err == nil || strings.Count(err.Error(), comm) < 3 {
		t.Errorf("%v does not say three times %q", err, comm)
	}
	c = startChild(t, "tcp").collect()
	x = c.prepare(FilesStrict)
	if err := x.Refuse.Err(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("its port is taken by pid %d (exe)", c.pid)) {
		t.Errorf("%v", err)
	}
}
