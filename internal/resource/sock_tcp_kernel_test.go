package resource

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	sk_unix "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
	"google.golang.org/protobuf/proto"
)

// ownTCP makes a connection in this process.
func ownTCP(t *testing.T) (client, server int) {
	t.Helper()
	l := must1(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	defer unix.Close(l)
	must(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.Listen(l, 1))
	client = must1(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	must(unix.Connect(client, must1(unix.Getsockname(l))))
	server, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	must(err)
	t.Cleanup(func() { unix.Close(client); unix.Close(server) })
	return client, server
}

func ownSock(d *Dump, fd int) *inetSock {
	info := must1(unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO))
	return &inetSock{
		f:     &File{PID: ownPID, FD: fd, dup: -1, lent: -1, dump: d},
		sock:  &sock{domain: unix.AF_INET, typ: unix.SOCK_STREAM, proto: unix.IPPROTO_TCP},
		entry: &sk_inet.InetSkEntry{State: proto.Uint32(uint32(info.State))},
		tcp:   &tcpSock{info: info},
	}
}

// TestViewIsRepair: what the kernel's memory tells of a connection is what repair
// mode tells of it.
func TestViewIsRepair(t *testing.T) {
	d := NewDump(image.New(), &fault.Refusals{})
	defer d.Close()
	if _, err := d.Kernel(); errors.Is(err, kmem.ErrUnavailable) {
		t.Skip(err)
	}
	fill := func(fd, n int) (b []byte) {
		must(unix.SetNonblock(fd, true))
		for i := 0; len(b) < n; i++ {
			p := bytes.Repeat([]byte(fmt.Sprintf("%06d ", i)), 200)
			k, err := unix.Write(fd, p)
			if err == unix.EAGAIN {
				break
			}
			must(err)
			b = append(b, p[:k]...)
		}
		return b
	}
	for name, prepare := range map[string]func(a, b int){
		"idle":  func(a, b int) {},
		"bytes": func(a, b int) { fill(a, 1); fill(b, 5000) },
		"full": func(a, b int) {
			fill(a, 64<<20)
			_, err := unix.Read(b, make([]byte, 333))
			must(err)
		},
		"both full": func(a, b int) { fill(a, 64<<20); fill(b, 64<<20) },
		"ended":     func(a, b int) { fill(a, 3000); must(unix.Shutdown(a, unix.SHUT_WR)) },
		"full, ended": func(a, b int) {
			fill(a, 64<<20)
			must(unix.Shutdown(a, unix.SHUT_WR))
		},
		"peek offset": func(a, b int) {
			fill(a, 5000)
			_ = unix.SetsockoptInt(b, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 700)
			_, err := unix.Read(b, make([]byte, 100))
			must(err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := ownTCP(t)
			prepare(a, b)
			for i, fd := range []int{a, b} {
				s := ownSock(d, fd)
				v, done, err := d.view(s)
				must(err)
				defer done()
				off, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
				repair := func() int {
					return must1(unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR))
				}
				in, inSeq, err := v.received()
				must(err)
				out, unsent, outSeq, err := v.unacknowledged()
				must(err)
				win, mss := must1(v.window()), must1(v.mss())
				if repair() != 0 {
					t.Error("it is in repair mode")
				}
				if now, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF); now != off {
					t.Errorf("SO_PEEK_OFF is %d, was %d", now, off)
				}
				_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, -1)
				r, back, err := d.enterRepair(s)
				must(err)
				defer back()
				if repair() == 0 {
					t.Error("it is not in repair mode")
				}
				in2, inSeq2, err := r.received()
				must(err)
				out2, unsent2, outSeq2, err := r.unacknowledged()
				must(err)
				win2, mss2 := must1(r.window()), must1(r.mss())
				must(r.leave())
				if !bytes.Equal(in, in2) || inSeq != inSeq2 {
					t.Errorf("end %d: received %d to %d, in repair mode %d to %d", i, len(in), inSeq, len(in2), inSeq2)
				}
				if !bytes.Equal(out, out2) || unsent != unsent2 || outSeq != outSeq2 {
					t.Errorf("end %d: sent %d, %d of it not, to %d, in repair mode %d, %d, %d", i, len(out), unsent, outSeq, len(out2), unsent2, outSeq2)
				}
				if fmt.Sprint(win, mss) != fmt.Sprint(win2, mss2) {
					t.Errorf("end %d: windows %v, segments of %d, in repair mode %v, %d", i, win, mss, win2, mss2)
				}
				if name == "full" && i == 0 && len(out) < 100000 {
					t.Errorf("%d bytes: nothing is full", len(out))
				}
			}
		})
	}
}

// TestAcknowledge: what was received is acknowledged at once, and no option
// shows it.
func TestAcknowledge(t *testing.T) {
	d := NewDump(image.New(), &fault.Refusals{})
	defer d.Close()
	seen := map[int]bool{}
	late := 0
	for i := range 40 {
		a, b := ownTCP(t)
		quick := i % 2
		// An answer makes the kernel expect more answers, and delay.
		for range 3 {
			must1(unix.Write(a, []byte("question")))
			must1(unix.Read(b, make([]byte, 100)))
			must1(unix.Write(b, []byte("answer")))
			must1(unix.Read(a, make([]byte, 100)))
		}
		must(unix.SetsockoptInt(b, unix.IPPROTO_TCP, unix.TCP_QUICKACK, quick))
		was := must1(unix.GetsockoptInt(b, unix.IPPROTO_TCP, unix.TCP_QUICKACK))
		seen[was] = true
		must1(unix.Write(a, []byte("x")))
		must1(unix.Read(b, make([]byte, 100)))
		if must1(unix.IoctlGetInt(a, unix.SIOCOUTQ)) > 0 {
			late++
		}
		x, y := ownSock(d, a), ownSock(d, b)
		must(acknowledge(x, y))
		if x.tcp.outq != 0 {
			t.Errorf("%d bytes are not acknowledged", x.tcp.outq)
		}
		if now := must1(unix.GetsockoptInt(b, unix.IPPROTO_TCP, unix.TCP_QUICKACK)); now != was {
			t.Errorf("TCP_QUICKACK is %d, was %d", now, was)
		}
	}
	if late == 0 || len(seen) != 2 {
		t.Errorf("%d acknowledgements were late, options %v: nothing was tested", late, seen)
	}
}

// TestViewIsPeek: what the kernel's memory tells of datagrams that wait is what
// peeking tells.
func TestViewIsPeek(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T) (domain, fd int){
		"IPv4": func(t *testing.T) (int, int) {
			return unix.AF_INET, datagrams(t, unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, unix.AF_INET)
		},
		"IPv6": func(t *testing.T) (int, int) {
			return unix.AF_INET6, datagrams(t, unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}, unix.AF_INET6)
		},
		"IPv4 to IPv6": func(t *testing.T) (int, int) {
			return unix.AF_INET6, datagrams(t, unix.AF_INET6, &unix.SockaddrInet6{}, unix.AF_INET)
		},
		"unix": func(t *testing.T) (int, int) {
			return unix.AF_UNIX, datagrams(t, unix.AF_UNIX, &unix.SockaddrUnix{Name: "@view-is-peek"}, unix.AF_UNIX)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDump(image.New(), &fault.Refusals{})
			defer d.Close()
			if _, err := d.Kernel(); errors.Is(err, kmem.ErrUnavailable) {
				t.Skip(err)
			}
			domain, fd := prepare(t)
			f := &File{ID: 1, PID: ownPID, FD: fd, dup: -1, lent: -1, dump: d}
			var viewed, peeked []*sockMessage
			if domain == unix.AF_UNIX {
				s := &unixSock{f: f, entry: &sk_unix.UnixSkEntry{Type: proto.Uint32(unix.SOCK_DGRAM)}, diag: &sockdiag.Unix{}}
				viewed = must1(s.viewDatagrams(d, fd))
				p := &peeker{d: d, s: s, fd: fd, oob: make([]byte, oobSpace), from: make([]byte, 128), off: -1}
				must(p.datagrams(0))
				peeked = p.got
				must(p.back())
			} else {
				src, err := parseEndpoint(must1(sys.Sockname(fd)))
				must(err)
				s := &inetSock{f: f, sock: &sock{domain: domain}, src: src}
				viewed = must1(s.viewDatagrams(d, fd))
				must(s.peekDatagrams(d, fd))
				r := &sockImage{queue: map[uint32][]*sockMessage{}}
				must(r.readQueues(d.Image))
				peeked = r.queue[1]
			}
			if len(viewed) != 5 || len(peeked) != len(viewed) {
				t.Fatalf("%d and %d datagrams", len(viewed), len(peeked))
			}
			for i, v := range viewed {
				p := peeked[i]
				if !bytes.Equal(v.data, p.data) || !bytes.Equal(v.addr, p.addr) || !bytes.Equal(v.to, p.to) || fmt.Sprint(v.cred) != fmt.Sprint(p.cred) {
					t.Errorf("datagram %d: %.20q from %x to %x by %v, peeked at %.20q from %x to %x by %v", i, v.data, v.addr, v.to, v.cred, p.data, p.addr, p.to, p.cred)
				}
				if len(v.addr) == 0 || domain != unix.AF_UNIX && len(v.to) == 0 || domain == unix.AF_UNIX && v.cred == nil {
					t.Errorf("datagram %d: from %x to %x by %v", i, v.addr, v.to, v.cred)
				}
			}
		})
	}
}

// datagrams makes a socket in which five wait; the sender is of a family.
func datagrams(t *testing.T, domain int, at unix.Sockaddr, sender int) int {
	t.Helper()
	fd := must1(unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
	must(unix.Bind(fd, at))
	from := must1(unix.Socket(sender, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
	t.Cleanup(func() { unix.Close(fd); unix.Close(from) })
	to := must1(unix.Getsockname(fd))
	if x, ok := to.(*unix.SockaddrInet6); ok && sender == unix.AF_INET {
		to = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: x.Port}
	}
	switch domain {
	case unix.AF_UNIX:
		must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
		must(unix.Bind(from, &unix.SockaddrUnix{Name: "@view-is-peek-sender"}))
	case unix.AF_INET:
		must(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
	default:
		must(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
	}
	for _, n := range []int{5, 1, 0, 60000, 3} {
		must(unix.Sendto(from, bytes.Repeat([]byte{byte('a' + n%26)}, n), 0, to))
	}
	return fd
}
