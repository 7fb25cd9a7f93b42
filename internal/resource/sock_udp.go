package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// UDP (udp(7)), UDP-Lite, raw and ping sockets. A datagram that waits in a UDP
// socket is read as those of unix sockets are (sock_queue_kernel.go), with its
// sender's address, and where the program asked for it (IP_PKTINFO) the local one;
// the restore sends it again, from that address. Packets that wait in raw and ping sockets are not kept: their senders
// are other machines, and the protocols lose packets by nature; the restore says
// so.

// collectPackets reads the state of a socket that is not TCP. ok is false when
// it is refused.
func (s *inetSock) collectPackets(d *Dump, fd int) (ok bool, err error) {
	s.rawPeer(d)
	if s.dst.addr.IsValid() {
		s.entry.State = proto.Uint32(stateEstablished)
	}
	s.collectGroups(d, fd)
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	if _, err := unix.Poll(p, 0); err != nil {
		return false, fmt.Errorf("poll: %w", err)
	}
	ready := p[0].Revents
	udp := s.sock.typ == unix.SOCK_DGRAM && (s.sock.proto == unix.IPPROTO_UDP || s.sock.proto == unix.IPPROTO_UDPLITE)
	switch {
	case ready&unix.POLLHUP != 0:
		s.entry.Shutdown = shutBoth.Enum()
	case ready&unix.POLLRDHUP != 0:
		s.entry.Shutdown = shutRead.Enum()
	case udp && s.dst.addr.IsValid():
		// That it is shut down for writing shows nowhere else.
		g, err := s.diag(d, ^uint32(0))
		if err != nil {
			return false, err
		}
		if g != nil && g.Shutdown&2 != 0 {
			s.entry.Shutdown = shutWrite.Enum()
		}
	}
	if udp {
		n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		if err != nil {
			return false, fmt.Errorf("SIOCOUTQ: %w", err)
		}
		if n > 0 { // else nothing is being put together, nor on its way
			if ok, err := s.collectCorked(d, fd); !ok || err != nil {
				return false, err
			}
		}
	}
	if ready&unix.POLLERR != 0 {
		// The first receive would tell the error, a peek too.
		d.sockExtra(s.f).Error = proto.Bool(true)
		if n, err := unix.IoctlGetInt(fd, unix.SIOCINQ); err != nil || n > 0 {
			d.NotNow(s.f, "datagrams wait behind an error that the program has not been told", "let the program read from the socket first")
			return false, err
		}
		return true, nil
	}
	if ready&unix.POLLIN == 0 {
		return true, nil
	}
	if !udp {
		b := make([]byte, 1)
		if _, err := sys.Recvmsg(fd, b, nil, nil, unix.MSG_PEEK|unix.MSG_DONTWAIT); err == nil {
			d.sockExtra(s.f).Lost = proto.Bool(true)
		}
		return true, nil
	}
	switch all, err := s.viewDatagrams(d, fd); {
	case errors.Is(err, kmem.ErrUnavailable):
		return true, s.peekDatagrams(d, fd)
	case err != nil:
		return false, err
	default:
		for _, m := range all {
			d.addMessage(s.f, m)
		}
		return true, nil
	}
}

// collectCorked saves a datagram that is being put together (UDP_CORK, MSG_MORE).
// ok is false when it is refused.
func (s *inetSock) collectCorked(d *Dump, fd int) (ok bool, err error) {
	b, to, err := s.viewCorked(d, fd)
	if errors.Is(err, kmem.ErrUnavailable) {
		if v, e := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_CORK); e == nil && v != 0 {
			d.NotNow(s.f, fmt.Sprintf("a datagram is being put together (%v)", err), "let the program send it first")
			return false, nil
		}
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("a datagram that is being put together: %w", err)
	}
	if b != nil {
		x := d.sockExtra(s.f)
		x.Corked = b
		if !s.dst.addr.IsValid() || s.dst.same() != to.same() {
			x.CorkedTo = to.sockaddr(s.sock.domain)
		}
	}
	return true, nil
}

// peekDatagrams saves the datagrams that wait.
func (s *inetSock) peekDatagrams(d *Dump, fd int) (err error) {
	off, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	if err != nil {
		return fmt.Errorf("SO_PEEK_OFF: %w", err)
	}
	back, err := d.guarded(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, 0, off)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back()) }()
	buf, oob, from := make([]byte, 64<<10), make([]byte, 1024), make([]byte, 128)
	for {
		n, err := sys.Recvmsg(fd, buf, oob, from, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return fmt.Errorf("peeking at a datagram: %w", err)
		}
		if n.N == 0 && n.Name == 0 {
			return nil // shut down
		}
		data, gso, to := buf[:n.N], n.N, []byte(nil)
		cs, err := unix.ParseSocketControlMessage(oob[:n.OOB])
		if err != nil {
			return fmt.Errorf("ancillary data: %w", err)
		}
		for _, c := range cs {
			switch {
			case c.Header.Level == unix.IPPROTO_IP && c.Header.Type == unix.IP_PKTINFO && len(c.Data) >= 12:
				to = binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
				to = binary.BigEndian.AppendUint16(to, s.src.port)
				to = append(append(to, c.Data[8:12]...), make([]byte, 8)...)
			case c.Header.Level == unix.IPPROTO_IPV6 && c.Header.Type == unix.IPV6_PKTINFO && len(c.Data) >= 20:
				to = endpoint{endpointAddr(c.Data[:16]), s.src.port, nativeUint32(c.Data[16:])}.sockaddr(unix.AF_INET6)
			case c.Header.Level == unix.SOL_UDP && c.Header.Type == unix.UDP_GRO && len(c.Data) >= 2:
				gso = int(binary.NativeEndian.Uint16(c.Data)) // several, joined
			}
		}
		for first := true; first || len(data) > 0; first = false {
			k := min(len(data), max(gso, 1))
			d.addMessage(s.f, &sockMessage{
				data: append([]byte(nil), data[:k]...), addr: append([]byte(nil), from[:n.Name]...), to: to,
			})
			data = data[k:]
		}
	}
}
