package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/netlock"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// Making connections to the outside again (see sock_tcp_outside.go). Until the
// program is about to run they stay in repair mode: should the restore fail, they
// end without a word, the lock stays, and the next restore finds the peer waiting.

// connectOutside makes the connections whose peer is outside.
func (u *inetRestore) connectOutside() error {
	found := false
	for _, s := range u.all {
		found = found || s.x.GetLock() != "" || s.outside()
		if !s.outside() || s.closed {
			continue
		}
		if !u.repair {
			return fault.Errorf(fault.ErrPermission, "%s: only who has CAP_NET_ADMIN can make a connection to the outside again", s.what())
		}
		if err := u.connectOut(s); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
	}
	if found {
		u.r.atRelease(u.releaseOutside)
	}
	return nil
}

// outside tells whether an end is to be connected to a peer that is not in the
// checkpoint.
func (s *inetEnd) outside() bool { return s.x.GetOutside() && !idleState(s.state()) }

func (u *inetRestore) connectOut(s *inetEnd) error {
	if err := u.make(s); err != nil {
		return err
	}
	reuse(s.fd)
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON); err != nil {
		return fmt.Errorf("TCP_REPAIR: %w", err)
	}
	err := sys.Bind(s.fd, s.src.sockaddr(s.family()))
	if errors.Is(err, unix.EADDRINUSE) {
		// Fermata may have died just when the tasks were dead: the connection then
		// has ended by itself, behind its lock, and nobody has it any more.
		g, e := sockdiag.GetTCP(s.src.same(), s.dst.same(), s.dst.scope)
		if e == nil && g.Ino == 0 && sockdiag.DestroyTCP(s.src.same(), s.dst.same(), s.dst.scope) == nil {
			err = sys.Bind(s.fd, s.src.sockaddr(s.family()))
		}
	}
	if err := s.addrError(err); err != nil {
		return err
	}
	t := s.stream
	sent := s.out[:len(s.out)-int(t.GetUnsqLen())]
	for _, q := range []struct {
		queue int
		seq   uint32
	}{{tcpSendQueue, t.GetOutqSeq() - uint32(len(s.out))}, {tcpRecvQueue, t.GetInqSeq() - uint32(len(s.in))}} {
		if err := s.queue(q.queue); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(int32(q.seq))); err != nil {
			return fmt.Errorf("TCP_QUEUE_SEQ: %w", err)
		}
	}
	if err := s.connect(); err != nil {
		return err
	}
	if err := s.negotiated(); err != nil {
		return err
	}
	if t.Timestamp != nil && t.GetOptMask()&infoTimestamps != 0 {
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, int(int32(t.GetTimestamp()))); err != nil {
			return fmt.Errorf("TCP_TIMESTAMP: %w", err)
		}
	}
	if err := s.receiveOut(); err != nil {
		return err
	}
	if len(sent) > 0 {
		if err := s.queue(tcpSendQueue); err != nil {
			return err
		}
		if err := s.pourUrgent(sent, int(s.x.GetUrgentOut())-1); err != nil {
			return err
		}
	}
	if err := s.closing(); err != nil {
		return err
	}
	return s.window()
}

// receiveOut is receive with an urgent byte, which comes as the peer would send it.
func (s *inetEnd) receiveOut() error {
	if s.toResend() == nil {
		return s.receive()
	}
	s.queued = true
	t, u := s.stream, int(s.x.GetUrgent())-1
	if u >= len(s.in) {
		return fault.Errorf(fault.ErrDamaged, "%s: an urgent byte at %d of %d", s.what(), u, len(s.in))
	}
	if err := s.putReceived(s.in[:u]); err != nil {
		return err
	}
	if err := s.play(t.GetInqSeq()-uint32(len(s.in)-u), t.GetOutqSeq()-uint32(len(s.out)), tcpURG, s.in[u]); err != nil {
		return err
	}
	if err := s.takeUrgent(); err != nil {
		return err
	}
	return s.putReceived(s.in[u+1:])
}

// queue says which queue calls in repair mode mean.
func (s *inetEnd) queue(q int) error {
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, q); err != nil {
		return fmt.Errorf("TCP_REPAIR_QUEUE: %w", err)
	}
	return nil
}

// endsLater tells whether there is data that was not sent yet, and the end of the
// stream behind it: it can be sent, and ended, only out of repair mode.
func (s *inetEnd) endsLater() bool {
	return s.stream.GetUnsqLen() > 0 && sentFIN(s.state())
}

// closing brings a connection into the state that the end of a stream has made.
// The program's own end goes into the send queue as one that was sent; the peer's,
// and its acknowledgement, are played to the socket by a segment as the peer
// would send it, which alone may pass the lock.
func (s *inetEnd) closing() error {
	una := s.stream.GetOutqSeq() - uint32(len(s.out))
	end := func() error {
		if err := s.queue(tcpSendQueue); err != nil {
			return err
		}
		if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil {
			return fmt.Errorf("shutdown: %w", err)
		}
		return nil
	}
	in := s.stream.GetInqSeq()
	var err error
	state := s.state()
	if s.endsLater() {
		state = stateEstablished
		if s.state() == stateLastAck {
			state = stateCloseWait // the peer's end came first
		}
	}
	switch state {
	case stateCloseWait:
		err = s.play(in, una, tcpFIN)
	case stateFinWait1:
		err = end()
	case stateFinWait2:
		if err = end(); err == nil {
			err = s.play(in, s.stream.GetOutqSeq()+1, 0)
		}
	case stateClosing:
		if err = end(); err == nil {
			err = s.play(in, una, tcpFIN)
		}
	case stateLastAck:
		if err = s.play(in, una, tcpFIN); err == nil {
			err = s.awaitState(stateCloseWait)
		}
		if err == nil {
			err = end()
		}
	}
	if err != nil {
		return err
	}
	if s.is(tcpShutRD) {
		if err := unix.Shutdown(s.fd, unix.SHUT_RD); err != nil {
			return fmt.Errorf("shutdown for reading: %w", err)
		}
	}
	return s.awaitState(state)
}

// awaitState waits until a connection is in a state, which it is at once.
func (s *inetEnd) awaitState(state int) error {
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return fmt.Errorf("TCP_INFO: %w", err)
		}
		if int(info.State) == state {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("its state is %d, was %d (include/net/tcp_states.h)", info.State, state)
		}
	}
}

// window sets the windows (TCP_REPAIR_WINDOW, Linux 4.8). Without it the peer
// tells its own again, and is told a new one.
func (s *inetEnd) window() error {
	t := s.stream
	if t.RcvWup == nil {
		return nil
	}
	wup := t.GetRcvWup()
	if s.endsLater() && s.state() == stateClosing {
		wup = t.GetInqSeq() // without the peer's end, which is yet to come
	}
	var b []byte
	for _, v := range []uint32{t.GetSndWl1(), t.GetSndWnd(), t.GetMaxWindow(), t.GetRcvWnd(), wup} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	if err := sys.Setsockopt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, b); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("TCP_REPAIR_WINDOW: %w", err)
	}
	return nil
}

// releaseOutside lets the connections go on: they are unlocked, and leave repair
// mode with a probe that makes the peer tell its window.
func (u *inetRestore) releaseOutside() error {
	unlocked := map[string]bool{}
	for _, s := range u.all {
		if name := s.x.GetLock(); name != "" && !unlocked[name] {
			unlocked[name] = true
			if err := netlock.Unlock(name); err != nil {
				return err
			}
		}
	}
	for _, s := range u.all {
		if !s.outside() || s.closed {
			continue
		}
		if err := s.goOn(u); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
	}
	return nil
}

func (s *inetEnd) goOn(u *inetRestore) error {
	if err := s.queue(tcpNoQueue); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF); err != nil {
		return fmt.Errorf("leaving TCP_REPAIR: %w", err)
	}
	if n := int(s.stream.GetUnsqLen()); n > 0 {
		sent := len(s.out) - n
		if err := s.pourUrgent(s.out[sent:], int(s.x.GetUrgentOut())-1-sent); err != nil {
			return err
		}
	}
	if s.endsLater() {
		if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil {
			return fmt.Errorf("shutdown: %w", err)
		}
		if s.state() == stateClosing {
			if err := s.play(s.stream.GetInqSeq(), s.stream.GetOutqSeq()-uint32(len(s.out)), tcpFIN); err != nil {
				return err
			}
			if err := s.awaitState(stateClosing); err != nil {
				return err
			}
		}
	}
	// Leaving repair mode forgets SO_REUSEADDR, and there had to be room.
	restoreOpts(u.r, s.what(), s.fd, false, s.fields(), s.x)
	return nil
}

// closeInstead makes sockets that are connected by TCP closed ones
// (Restore.TCPClose): as if the connection had ended and been read to its end.
func (u *inetRestore) closeInstead() {
	for _, s := range u.all {
		if !s.tcp() || s.state() == stateListen || s.state() == stateClose {
			s.x.Pending, s.x.Arrived = nil, nil
			continue
		}
		s.closed = true
	}
}

// openClosed makes such a socket.
func (u *inetRestore) openClosed(s *inetEnd) error {
	if err := u.make(s); err != nil {
		return err
	}
	// It is not connected, and is told so, but is shut down all the same.
	if err := unix.Shutdown(s.fd, unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}
