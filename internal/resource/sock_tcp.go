package resource

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// TCP (tcp(7), include/uapi/linux/tcp.h). Of a listener there is a backlog and a
// queue of connections that were not accepted; of a connection its state, what
// was received and not read, what was sent and not received. Nothing else needs
// to be kept of a connection both ends of which are in the tree: while all tasks
// stand still the bytes on their way from one to the other are those that the
// receiver has and the program did not read, and those that the sender still
// holds and the receiver does not have.
//
// What was received is read with MSG_PEEK. What the sender holds no call gives to
// somebody who must leave the connection as it is (sock_tcp_kernel.go); nearly
// always it holds nothing.
//
// Each end has a record in the part tcp-stream/INODE: tcp_stream_entry and behind
// it the bytes received, then those sent. Sequence numbers are the connection's
// own when they had to be read, else made up; no program sees them.
type tcpSock struct {
	info    *unix.TCPInfo
	wscale  uint8 // that of sending in the low half, of receiving in the high
	revents int16
	inq     int // bytes to read
	outq    int // sequence numbers not yet acknowledged
	peer    *inetSock
	done    bool
	// Of a client that nobody has accepted: the listener, and whether anything has
	// been sent.
	listener   *inetSock
	sentUnread bool
	outside    bool // the peer is not in the tree, and that is allowed
	marked     bool // an urgent byte waits, or the place of one
}

// sentFIN tells whether the end of the stream has been sent, or is queued.
func sentFIN(state int) bool {
	switch state {
	case stateFinWait1, stateFinWait2, stateClosing, stateLastAck, stateTimeWait:
		return true
	}
	return false
}

// gotFIN tells whether the end of the peer's stream has been received.
func gotFIN(state int) bool {
	switch state {
	case stateCloseWait, stateClosing, stateLastAck, stateTimeWait:
		return true
	}
	return false
}

// unackedFIN tells whether the end was sent and not acknowledged: it takes a
// sequence number.
func unackedFIN(state int) bool {
	return state == stateFinWait1 || state == stateClosing || state == stateLastAck
}

func (s *inetSock) state() int { return int(s.entry.GetState()) }

// collectTCP reads TCP's state. ok is false when the socket is refused.
func (s *inetSock) collectTCP(d *Dump, fd int, st *sockState) (ok bool, err error) {
	t := &tcpSock{}
	s.tcp = t
	level := unix.IPPROTO_TCP
	if t.info, err = unix.GetsockoptTCPInfo(fd, level, unix.TCP_INFO); err != nil {
		return false, fmt.Errorf("TCP_INFO: %w", err)
	}
	var raw [8]byte // x/sys has no name for the byte of bit fields
	if _, err := sys.Getsockopt(fd, level, unix.TCP_INFO, raw[:]); err != nil {
		return false, fmt.Errorf("TCP_INFO: %w", err)
	}
	t.wscale = raw[6]
	state := int(t.info.State)
	s.entry.State = proto.Uint32(uint32(state))
	if s.mptcp() && state != stateListen && state != stateClose {
		if state, err = s.mptcpState(d, fd); err != nil {
			d.Refusal(s.f, fmt.Sprintf("an MPTCP connection (%v)", err), "close it before the checkpoint, or run the program without MPTCP")
			return false, nil
		}
		s.entry.State = proto.Uint32(uint32(state))
	}
	if ulp, err := unix.GetsockoptString(fd, level, unix.TCP_ULP); err == nil && ulp != "" && ulp != "mptcp" {
		d.Refusal(s.f, "a connection that the kernel itself encrypts or frames ("+ulp+")", "close it before the checkpoint")
		return false, nil
	}
	if st.listen = state == stateListen; st.listen {
		s.entry.Backlog = proto.Uint32(t.info.Sacked)
		return true, nil
	}
	if state == stateSynSent {
		// getpeername(2) does not tell to whom.
		g, err := s.diag(d, 1<<stateSynSent)
		if err != nil {
			return false, err
		}
		if g == nil {
			d.NotNow(s.f, "a connection is just being made", "try again in a moment")
			return false, nil
		}
		s.dst = endpoint{addr: g.Dst.Addr(), port: g.Dst.Port()}
		if s.dst.addr.IsLinkLocalUnicast() {
			s.dst.scope = g.Ifindex
		}
		s.setDst()
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI | unix.POLLRDHUP | unix.POLLOUT}}
	if _, err := unix.Poll(p, 0); err != nil {
		return false, fmt.Errorf("poll: %w", err)
	}
	t.revents = p[0].Revents
	st.closed = state == stateClose && t.revents&unix.POLLRDHUP == 0
	if s.mptcp() && state == stateClose {
		return true, nil
	}
	if state == stateSynRecv {
		d.NotNow(s.f, "a connection by TCP Fast Open that is not yet complete", "try again in a moment")
		return false, nil
	}
	x := d.sockExtra(s.f)
	if t.revents&unix.POLLERR != 0 {
		x.Error = proto.Bool(true)
	}
	if t.inq, err = unix.IoctlGetInt(fd, unix.SIOCINQ); err != nil {
		return false, fmt.Errorf("SIOCINQ: %w", err)
	}
	if t.outq, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ); err != nil {
		return false, fmt.Errorf("SIOCOUTQ: %w", err)
	}
	x.Data = proto.Uint32(s.tcpBits())
	if t.marked, err = s.urgentWaits(fd); err != nil {
		return false, err
	}
	if t.marked {
		if _, done, err := d.view(s); err == nil {
			done()
		} else {
			d.NotNow(s.f, fmt.Sprintf("urgent data (MSG_OOB) waits to be read (%v)", err), "let the program read it first")
			return false, nil
		}
	}
	return true, nil
}

// urgentWaits tells whether an urgent byte, or the place of one that was read, is
// among the bytes received.
func (s *inetSock) urgentWaits(fd int) (bool, error) {
	t := s.tcp
	if mark, err := unix.IoctlGetInt(fd, unix.SIOCATMARK); t.revents&unix.POLLPRI != 0 || err == nil && mark != 0 {
		return true, nil
	}
	if t.inq == 0 || s.mptcp() || !s.dst.addr.IsValid() {
		return false, nil
	}
	// SIOCINQ counts up to the place, the monitor all.
	g, err := sockdiag.GetTCP(s.src.same(), s.dst.same(), s.dst.scope)
	if err != nil || uint64(g.Ino) != s.f.Stat.Ino {
		return false, nil // as when it is over
	}
	all := int(g.RQueue)
	if gotFIN(s.state()) {
		all--
	}
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ) // more may have come just now
	if err != nil {
		return false, fmt.Errorf("SIOCINQ: %w", err)
	}
	return all > n, nil
}

// What sock_extra.data says of TCP.
const (
	tcpOver    = 1 << iota // it was connected, and that is over
	tcpRefused             // the connection was never there
	tcpShutRD              // shut down for reading, by its own side
)

func (s *inetSock) tcpBits() (bits uint32) {
	hup := s.tcp.revents&unix.POLLRDHUP != 0
	switch state := s.state(); {
	case state == stateClose && hup:
		bits |= tcpOver
		if i := s.tcp.info; i.Rtt == 0 && i.Bytes_acked == 0 && i.Options == 0 {
			bits |= tcpRefused // nothing was ever agreed on, nor acknowledged
		}
	case hup && !gotFIN(state):
		bits |= tcpShutRD
	}
	return bits
}

// completeTCP pairs the connections and saves what is on its way.
func (d *Dump) completeTCP(u *inetDump) error {
	type key struct{ a, b netip.AddrPort }
	conns := map[key]*inetSock{}
	for _, s := range u.order {
		if s.tcp != nil && s.dst.addr.IsValid() {
			conns[key{s.src.same(), s.dst.same()}] = s
		}
	}
	for _, s := range u.order {
		if s.tcp == nil || s.f.Entry == nil || s.tcp.done || s.mptcp() && s.state() == stateClose {
			continue
		}
		state := s.state()
		var err error
		switch {
		case state == stateListen, state == stateSynSent:
		case state == stateClose:
			if s.tcp.inq > 0 {
				err = d.saveStream(s, nil)
			}
		case conns[key{s.dst.same(), s.src.same()}] != nil:
			p := conns[key{s.dst.same(), s.src.same()}]
			if p.f.Entry == nil {
				continue // refused
			}
			s.tcp.peer, p.tcp.peer = p, s
			d.sockExtra(s.f).Peer, d.sockExtra(p.f).Peer = p.entry.Ino, s.entry.Ino
			err = d.saveStream(s, p)
			p.tcp.done = true
		default:
			err = d.tcpWithoutPeer(u, s)
		}
		if err != nil {
			return fmt.Errorf("pid %d: %s (%s to %s): %w", s.f.PID, s.f, s.src, s.dst, err)
		}
		s.tcp.done = true
	}
	for _, s := range u.order {
		if s.tcp == nil || s.f.Entry == nil || s.state() != stateListen {
			continue
		}
		var clients []*inetSock
		for _, c := range u.order {
			if c.tcp != nil && c.tcp.listener == s && c.f.Entry != nil {
				clients = append(clients, c)
			}
		}
		if err := d.backlog(s, clients); err != nil {
			return fmt.Errorf("pid %d: %s (%s): %w", s.f.PID, s.f, s.src, err)
		}
	}
	return d.completeOutside(u)
}

// tcpWithoutPeer deals with a connection whose other end is no file of the tree:
// not accepted yet, closed, or outside.
func (d *Dump) tcpWithoutPeer(u *inetDump, s *inetSock) error {
	outside := func(who, remedy string) error {
		if d.TCPOutside && !s.mptcp() {
			s.tcp.outside = true
			return nil
		}
		d.Refusal(s.f, fmt.Sprintf("a TCP connection from %s to %s, %s", s.src, s.dst, who), remedy)
		return nil
	}
	const remedy = "allow it with --tcp-established, or close the connection before the checkpoint"
	if !isLocal(d, s.dst.addr) {
		return outside("outside this machine", remedy)
	}
	g, err := sockdiag.GetTCP(s.dst.same(), s.src.same(), s.dst.scope)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	there := err == nil && g.State != stateListen && g.Dst.Port() == s.src.port
	state := s.state()
	if s.mptcp() && there && g.Ino != 0 && gotFIN(state) {
		// A path keeps the number of a socket that is closed.
		if _, held := findHolder(uint64(g.Ino)); !held {
			there = false
		}
	}
	switch {
	case there && g.Ino != 0:
		return outside("of "+holderOf(uint64(g.Ino))+", outside the tree", "checkpoint that process too, or allow it with --tcp-established")
	case there && !sentFIN(int(g.State)):
		return d.tcpUnaccepted(u, s, &g, outside)
	case !there && !gotFIN(state):
		return outside("whose other end is missing", "close it before the checkpoint")
	case there && unackedFIN(int(g.State)) && g.WQueue > 1:
		d.NotNow(s.f, "its peer closed it with data that this end has no room for yet", "let the program read from it first")
		return nil
	}
	d.sockExtra(s.f).PeerGone = proto.Bool(true)
	return d.saveStream(s, nil)
}

// tcpUnaccepted deals with a connection that waits in a listener's queue.
func (d *Dump) tcpUnaccepted(u *inetDump, s *inetSock, g *sockdiag.Inet, outside func(who, remedy string) error) error {
	var l *inetSock
	for _, c := range u.order {
		if c.tcp == nil || c.state() != stateListen || c.src.port != s.dst.port {
			continue
		}
		if c.src.same() == s.dst.same() || (l == nil && c.src.addr.IsUnspecified()) {
			l = c
		}
	}
	if l == nil {
		return outside("not accepted by whoever listens there, outside the tree", "checkpoint that process too, or allow it with --tcp-established")
	}
	s.tcp.listener = l
	s.tcp.sentUnread = s.mptcp() || g.RQueue != 0 || s.tcp.outq > 0 || sentFIN(s.state())
	d.sockExtra(s.f).Peer = l.entry.Ino
	return nil
}

// saveStream saves what is on its way in both directions of a connection. peer
// is nil when it is closed: what was sent to it is of no use to anyone.
func (d *Dump) saveStream(s, peer *inetSock) error {
	if peer != nil && (s.unacked() > 0 || peer.unacked() > 0) {
		if err := acknowledge(s, peer); err != nil {
			return err
		}
	}
	if peer != nil && (s.unacked() > 0 || peer.unacked() > 0) {
		if s.mptcp() || peer.mptcp() {
			return d.waitDrained(s, peer)
		}
		return d.saveUnacked(s, peer)
	}
	for _, x := range []*inetSock{s, peer} {
		if x == nil {
			continue
		}
		in, err := d.peekTCP(x)
		if err != nil {
			return err
		}
		d.addStream(x, in, nil, madeUpSeq, madeUpSeq)
	}
	return nil
}

// unacked gives how many bytes were sent, or are to be, and not acknowledged.
func (s *inetSock) unacked() int {
	n := s.tcp.outq
	if unackedFIN(s.state()) {
		n--
	}
	return n
}

// acknowledge makes two ends acknowledge what their programs have read and they
// have not told each other yet, as they would by themselves within 40 ms: setting
// TCP_QUICKACK does that at once, and to the value it has, nothing else.
func acknowledge(ends ...*inetSock) error {
	for _, x := range ends {
		fd, done, err := x.f.borrow()
		if err != nil {
			return err
		}
		if v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK); err == nil {
			if v == 0 {
				v = 2 // acknowledges, and stays 0
			}
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, v)
		}
		done()
	}
	for _, x := range ends {
		fd, done, err := x.f.borrow()
		if err != nil {
			return err
		}
		x.tcp.outq, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		done()
		if err != nil {
			return fmt.Errorf("SIOCOUTQ: %w", err)
		}
	}
	return nil
}

// madeUpSeq is the sequence number of connections whose own was not read.
const madeUpSeq = 1 << 28

// peekTCP reads what waits in a connection.
func (d *Dump) peekTCP(s *inetSock) (b []byte, err error) {
	fd, done, err := s.f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	if s.tcp.marked {
		return d.viewReceived(s)
	}
	if off, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF); err == nil && off >= 0 {
		// Of TCP since Linux 6.9.
		if b, err := d.viewReceived(s); !errors.Is(err, kmem.ErrUnavailable) {
			return b, err
		}
		back, err := d.guarded(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, -1, off)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, back()) }()
	}
	if s.mptcp() && gotFIN(s.state()) {
		return peekStream(fd, 1) // it counts the end of the stream
	}
	return peekStream(fd, 0)
}

// viewReceived reads what waits in a connection from the kernel's memory.
func (d *Dump) viewReceived(s *inetSock) ([]byte, error) {
	v, done, err := d.view(s)
	if err != nil {
		return nil, err
	}
	defer done()
	b, end, err := v.received()
	if err != nil {
		return nil, err
	}
	u, err := v.urgent(end, len(b), 0, 0)
	d.addUrgent(s, u)
	return b, err
}

// addUrgent puts the places of urgent bytes into the image.
func (d *Dump) addUrgent(s *inetSock, u urgency) {
	x := d.sockExtra(s.f)
	if u.in >= 0 {
		x.Urgent = proto.Uint32(uint32(u.in) + 1)
		if u.read {
			x.UrgentRead = proto.Bool(true)
		}
	}
	if u.out >= 0 {
		x.UrgentOut = proto.Uint32(uint32(u.out) + 1)
	}
}

// peekStream reads all that waits in a TCP socket. It never reads beyond: an
// error that waits there would be told. SIOCINQ tells more more bytes than there
// are.
func peekStream(fd, more int) ([]byte, error) {
	for range 100 {
		n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		if n -= more; err != nil || n <= 0 {
			return nil, err
		}
		b := make([]byte, n)
		got, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != nil {
			return nil, fmt.Errorf("peeking at %d bytes: %w", n, err)
		}
		if now, err := unix.IoctlGetInt(fd, unix.SIOCINQ); err == nil && now-more == got {
			return b[:got], nil
		}
	}
	return nil, errors.New("what waits to be read does not come to rest")
}

// addStream puts an end of a connection into the image. The sequence numbers are
// those behind the last byte received and sent.
func (d *Dump) addStream(s *inetSock, in, out []byte, inSeq, outSeq uint32) {
	i := s.tcp.info
	e := &tcp_stream.TcpStreamEntry{
		InqLen: proto.Uint32(uint32(len(in))), InqSeq: proto.Uint32(inSeq),
		OutqLen: proto.Uint32(uint32(len(out))), OutqSeq: proto.Uint32(outSeq),
		OptMask: proto.Uint32(uint32(i.Options)), SndWscale: proto.Uint32(uint32(s.tcp.wscale & 0xf)),
		RcvWscale: proto.Uint32(uint32(s.tcp.wscale >> 4)), MssClamp: proto.Uint32(max(i.Advmss, i.Snd_mss)),
		UnsqLen: proto.Uint32(0),
	}
	d.Image.Add(image.Of("tcp-stream", int(s.entry.GetIno())), e, append(append([]byte(nil), in...), out...)...)
}
