package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// TCP connections. Both ends are made, in repair mode without a packet, or by a
// handshake through a listener of our own; then the bytes that were on their way
// are sent again, and each side closes or resets what it had closed or reset, so
// that the kernel itself brings either end into its state. An end that was closed
// is made too, and closed in the end.

// match finds both ends of each connection.
func (u *inetRestore) match() error {
	for _, s := range append([]*inetEnd(nil), u.all...) {
		if !s.tcp() || s.mate != nil || s.closed {
			continue
		}
		switch p := u.byIno[s.x.GetPeer()]; {
		case s.x.GetPeerGone() || (s.is(tcpOver) && !s.is(tcpRefused)):
			g := &inetEnd{
				e: &sk_inet.InetSkEntry{Family: s.e.Family, Type: s.e.Type, Proto: s.e.Proto}, x: &fm.SockExtra{}, fd: -1, gone: true,
				src: s.dst, dst: s.src, mate: s,
			}
			if s.is(tcpOver) { // to whom, nobody can tell any more
				g.src = endpoint{addr: s.src.addr, scope: s.src.scope}
			}
			s.mate = g
			u.all = append(u.all, g)
		case s.x.GetPeer() == 0:
			if !idleState(s.state()) && !s.outside() {
				return fault.Errorf(fault.ErrDamaged, "%s: a connection without another end", s.what())
			}
		case p == nil:
			return fault.Errorf(fault.ErrDamaged, "%s: its other end %d is missing", s.what(), s.x.GetPeer())
		case p.state() == stateListen: // not accepted yet
		default:
			s.mate, p.mate = p, s
		}
		if (s.mate != nil || s.outside()) && s.stream == nil && !s.is(tcpOver) {
			return fault.Errorf(fault.ErrDamaged, "%s: tcp_stream_entry is missing", s.what())
		}
	}
	return nil
}

func idleState(state int) bool {
	return state == stateClose || state == stateListen || state == stateSynSent
}

// connectDisguised makes the connections of MPTCP, which knows no repair mode.
func (u *inetRestore) connectDisguised() error {
	for _, s := range u.all {
		if s.mate == nil || s.fd >= 0 || !s.mptcp() && !s.mate.mptcp() {
			continue
		}
		a, b := s, s.mate
		// Where only one of them speaks MPTCP, that one has connected: a listener
		// of MPTCP gives a client that does not a socket of TCP.
		if b.gone || !a.mptcp() {
			a, b = b, a
		}
		if err := u.handshake(a, b); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
		reuse(a.fd)
		reuse(b.fd)
	}
	return nil
}

// connectAll makes all connections.
func (u *inetRestore) connectAll() error {
	for _, s := range u.all {
		if s.mate == nil || s.fd >= 0 {
			continue
		}
		a, b := s, s.mate
		if b.gone {
			a, b = b, a // its port may yet have to be chosen
		}
		f := u.handshake
		if u.repair {
			f = u.connectRepaired
		}
		if err := f(a, b); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
		for _, x := range []*inetEnd{a, b} {
			reuse(x.fd) // for those that are yet to be bound to the port
		}
	}
	return nil
}

// connectRepaired makes both ends of a connection without a packet.
func (u *inetRestore) connectRepaired(a, b *inetEnd) error {
	for _, s := range []*inetEnd{a, b} {
		if err := u.make(s); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON); err != nil {
			return fmt.Errorf("TCP_REPAIR: %w", err)
		}
		if err := s.addrError(sys.Bind(s.fd, s.loose().sockaddr(s.family()))); err != nil {
			return err
		}
		if s.src.port == 0 {
			if err := s.chosen(s.fd); err != nil {
				return err
			}
		}
	}
	for _, s := range []*inetEnd{a, b} {
		// What the other end has received is what this one has sent.
		for _, q := range []struct {
			queue int
			seq   uint32
		}{{tcpSendQueue, s.mate.inSeq() - uint32(len(s.mate.toResend()))}, {tcpRecvQueue, s.inSeq() - uint32(len(s.in))}} {
			err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, q.queue)
			if err == nil {
				err = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(int32(q.seq)))
			}
			if err != nil {
				return fmt.Errorf("TCP_QUEUE_SEQ: %w", err)
			}
		}
		if err := s.connect(); err != nil {
			return err
		}
		if err := s.negotiated(); err != nil {
			return err
		}
		if err := s.receive(); err != nil {
			return err
		}
	}
	for _, s := range []*inetEnd{a, b} {
		// Each end asks the other for its window, now that both are there.
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF); err != nil {
			return fmt.Errorf("leaving TCP_REPAIR: %w", err)
		}
	}
	return nil
}

// loose gives the address to bind an end to. An address of IPv6 would set
// IPV6_V6ONLY, which cannot be taken back; without one, connecting chooses it.
func (s *inetEnd) loose() endpoint {
	a := s.src
	if s.family() == unix.AF_INET6 && !a.addr.Is4In6() && s.e.V6Only != nil && !s.e.GetV6Only() && s.dst.addr == a.addr {
		a.addr, a.scope = netip.IPv6Unspecified(), 0
	}
	return a
}

// bindOr binds an end's socket to its address, or, where nobody can tell the
// difference by what works, to another port: the kernel may keep that of an
// ended connection for up to a minute.
func (u *inetRestore) bindOr(s *inetEnd, fd int, any bool) error {
	err := sys.Bind(fd, s.src.sockaddr(s.family()))
	if any && errors.Is(err, unix.EADDRINUSE) {
		u.r.Note("a TCP connection that has ended shows another port now: %s is in use", s.src)
		s.src.port = 0
		err = sys.Bind(fd, s.src.sockaddr(s.family()))
	}
	if err := s.addrError(err); err != nil || s.src.port != 0 {
		return err
	}
	return s.chosen(fd)
}

// chosen notes the port that the kernel chose.
func (s *inetEnd) chosen(fd int) error {
	sa, err := sys.Sockname(fd)
	if err != nil {
		return err
	}
	if s.src, err = parseEndpoint(sa); err != nil {
		return err
	}
	s.mate.dst = s.src
	return nil
}

func (s *inetEnd) inSeq() uint32 {
	if s.stream == nil {
		return madeUpSeq
	}
	return s.stream.GetInqSeq()
}

// connect connects an end to the other. What the kernel still keeps of an ended
// connection between the same addresses is removed, if need be.
func (s *inetEnd) connect() error {
	err := sys.Connect(s.fd, s.dst.sockaddr(s.family()))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		if derr := sockdiag.DestroyTCP(s.src.same(), s.dst.same(), s.dst.scope); derr == nil {
			err = sys.Connect(s.fd, s.dst.sockaddr(s.family()))
		}
	}
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return fault.Errorf(fault.ErrBusy, "a connection from %s to %s exists: %w", s.src, s.dst, err)
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// Options that a handshake agrees on (TCPI_OPT_, TCPOPT_; include/uapi/linux/tcp.h,
// include/net/tcp.h).
const (
	infoTimestamps = 1
	infoSACK       = 2
	infoWscale     = 4

	optMSS       = 2
	optWindow    = 3
	optSACK      = 4
	optTimestamp = 8
)

// negotiated sets what the handshake had agreed on.
func (s *inetEnd) negotiated() error {
	t, snd, rcv := s.stream, uint32(0), uint32(0)
	if t != nil {
		snd, rcv = t.GetSndWscale(), t.GetRcvWscale()
	} else if t = s.mate.stream; t != nil {
		snd, rcv = t.GetRcvWscale(), t.GetSndWscale()
	}
	mask := uint32(infoSACK | infoTimestamps) // of a connection that is over, to show that it was one
	if t != nil {
		mask = t.GetOptMask()
	}
	var b []byte
	add := func(code, val uint32) {
		b = binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(b, code), val)
	}
	if mask&infoSACK != 0 {
		add(optSACK, 0)
	}
	if mask&infoWscale != 0 {
		add(optWindow, snd|rcv<<16)
	}
	if mask&infoTimestamps != 0 {
		add(optTimestamp, 0)
	}
	if mss := t.GetMssClamp(); mss != 0 {
		add(optMSS, mss)
	}
	if err := sys.Setsockopt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS, b); err != nil {
		return fmt.Errorf("TCP_REPAIR_OPTIONS: %w", err)
	}
	return nil
}

// toResend gives what was received and must be sent again by the other end: all of
// it where an urgent byte is in it, which only a segment can mark.
func (s *inetEnd) toResend() []byte {
	if s.x.GetUrgent() == 0 {
		return nil
	}
	return s.in
}

// receive puts into the receive queue what was there.
func (s *inetEnd) receive() error {
	if s.toResend() != nil {
		return nil
	}
	s.queued = true
	return s.putReceived(s.in)
}

func (s *inetEnd) putReceived(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	wide(s.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, tcpRecvQueue); err != nil {
		return fmt.Errorf("TCP_REPAIR_QUEUE: %w", err)
	}
	for len(b) > 0 {
		n, err := unix.SendmsgN(s.fd, b[:min(len(b), 64<<10)], nil, nil, unix.MSG_NOSIGNAL)
		if err != nil {
			return fmt.Errorf("filling the receive queue: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// wide lets a socket hold as much as there may be.
func wide(fd, force, name int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, plenty) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, plenty)
	}
}

// handshake makes a connection as programs do, for those who may not repair. b
// accepts; a's port may be left to the kernel.
func (u *inetRestore) handshake(a, b *inetEnd) error {
	l, err := unix.Socket(b.family(), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, b.proto())
	if err != nil {
		return err
	}
	defer unix.Close(l)
	restoreOpts(u.r, b.what(), l, true, b.fields(), b.x)
	reuse(l)
	if err := u.bindOr(b, l, b.is(tcpOver)); err != nil {
		return err
	}
	if err := unix.Listen(l, 8); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := u.make(a); err != nil {
		return err
	}
	reuse(a.fd)
	if err := u.bindOr(a, a.fd, a.gone); err != nil {
		return err
	}
	if err := a.connect(); err != nil {
		return err
	}
	for {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		sa, err := sys.Peername(fd)
		if err == nil {
			var p endpoint
			if p, err = parseEndpoint(sa); err == nil && p.same() == a.src.same() {
				b.fd = fd
				break
			}
		}
		unix.Close(fd) // a stranger, who found nobody here until now
	}
	if b.gone {
		return nil
	}
	if err := restoreCommon(u.r, b.id, b.fd); err != nil {
		return err
	}
	restoreOpts(u.r, b.what(), b.fd, true, b.fields(), b.x)
	return nil
}

// refused makes a socket whose connection never came about.
func (u *inetRestore) refused(s *inetEnd) error {
	// A port that is taken and where nobody listens.
	p, err := unix.Socket(s.family(), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(p)
	at := endpoint{addr: loopback(s.family())}
	if err := sys.Bind(p, at.sockaddr(s.family())); err != nil {
		return err
	}
	sa, err := sys.Sockname(p)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(s.fd, true); err != nil {
		return err
	}
	if err := sys.Connect(s.fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("connecting to nobody: %w", err)
	}
	if err := await(s.fd, unix.POLLHUP); err != nil {
		return err
	}
	return errors.Join(s.tell(), unix.SetNonblock(s.fd, false))
}

// tell takes the error out of a socket whose program has been told.
func (s *inetEnd) tell() error {
	if s.x.GetError() {
		return nil
	}
	_, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	return err
}

// await waits until a socket shows an event, which over loopback it does at once.
func await(fd int, event int16) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: event}}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if _, err := unix.Poll(p, 100); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		if p[0].Revents&event != 0 {
			return nil
		}
	}
	return fmt.Errorf("event %#x does not come (%#x)", event, p[0].Revents)
}
