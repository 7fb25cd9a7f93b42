package resource

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// fillPackets puts datagrams into the queues of UDP sockets, and connects those
// that were connected: from then on they take from their peer only.
func (u *inetRestore) fillPackets() error {
	for _, s := range u.all {
		if s.tcp() || s.gone {
			continue
		}
		if err := u.fillDatagrams(s); err != nil {
			return fmt.Errorf("%s: queue: %w", s.what(), err)
		}
	}
	for _, s := range u.all {
		if s.tcp() || s.gone {
			continue
		}
		if s.state() == stateEstablished {
			if err := sys.Connect(s.fd, s.dst.sockaddr(s.family())); err != nil {
				return fmt.Errorf("%s: connect: %w", s.what(), err)
			}
		}
		if err := s.joinGroups(); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
		if how := int(s.e.GetShutdown()); how != 0 {
			if err := unix.Shutdown(s.fd, how-1); err != nil && err != unix.ENOTCONN {
				return fmt.Errorf("%s: shutdown: %w", s.what(), err)
			}
		}
		if s.x.GetError() {
			u.r.Note("%s: an error that waited to be told is lost", s.what())
		}
		if s.x.Corked != nil {
			if err := s.cork(); err != nil {
				return fmt.Errorf("%s: %w", s.what(), err)
			}
		}
	}
	return nil
}

// cork begins a datagram again that was being put together. Whether it is sent at
// the next send or when UDP_CORK is taken back, that option says, which is set with
// the others.
func (s *inetEnd) cork() error {
	var to []byte
	if b := s.x.GetCorkedTo(); len(b) > 0 {
		to = b
	}
	_, err := sys.Sendmsg(s.fd, s.x.GetCorked(), nil, to, unix.MSG_MORE|unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	if err != nil {
		return fmt.Errorf("putting %d bytes of a datagram together again: %w", len(s.x.GetCorked()), err)
	}
	return nil
}

func loopback(family int) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// fillDatagrams sends a socket's datagrams to it again.
func (u *inetRestore) fillDatagrams(s *inetEnd) error {
	msgs := u.im.queue[s.id]
	if len(msgs) == 0 {
		return nil
	}
	// One CPU's backlog keeps the order.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	wide(s.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
	made := map[endpoint]int{}
	defer func() {
		for _, fd := range made {
			unix.Close(fd)
		}
	}()
	lost := 0
	for _, m := range msgs {
		from, err := parseEndpoint(m.addr)
		if err != nil {
			return err
		}
		fd, ok := made[from]
		if !ok {
			if fd, err = u.sender(s, from); err != nil {
				u.r.Note("%s: datagrams of %s that were not read are lost: %v", s.what(), from, err)
			}
			made[from] = fd
		}
		if fd < 0 {
			continue
		}
		arrived, err := u.sendDatagram(fd, s, from, m)
		if err != nil {
			return err
		}
		if !arrived {
			lost++
		}
	}
	if lost > 0 {
		u.r.Note("%s: %d datagrams that were not read are lost", s.what(), lost)
	}
	return nil
}

// sender gives a socket to send from an address: a duplicate of the one in the
// tree that has it, or one of our own.
func (u *inetRestore) sender(to *inetEnd, from endpoint) (int, error) {
	for _, o := range u.all {
		if o.gone || o.proto() != to.proto() || o.e.GetType() != to.e.GetType() || o.family() != to.family() {
			continue
		}
		if o.src.port == from.port && o.src.same() == from.same() {
			return unix.FcntlInt(uintptr(o.fd), unix.F_DUPFD_CLOEXEC, 0)
		}
	}
	fd, err := unix.Socket(to.family(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, to.proto())
	if err != nil {
		return -1, err
	}
	reuse(fd)
	if !from.addr.IsLoopback() && !localAddrs()[from.addr.Unmap()] {
		// An address of another machine: only CAP_NET_ADMIN may send from it.
		level, name := unix.IPPROTO_IP, unix.IP_TRANSPARENT
		if to.family() == unix.AF_INET6 {
			level, name = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
		}
		if err := unix.SetsockoptInt(fd, level, name, 1); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	if err := sys.Bind(fd, from.sockaddr(to.family())); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// sendDatagram sends one datagram and waits for it to arrive.
func (u *inetRestore) sendDatagram(fd int, s *inetEnd, from endpoint, m *sockMessage) (bool, error) {
	to := s.src
	if len(m.to) > 0 {
		var err error
		if to, err = parseEndpoint(m.to); err != nil {
			return false, err
		}
	}
	if to.addr.IsUnspecified() {
		to.addr, to.scope = loopback(s.family()), 0
		if from.addr.Unmap().Is4() {
			to.addr = loopback(unix.AF_INET)
		}
		if !from.addr.IsLoopback() && localAddrs()[from.addr.Unmap()] {
			to.addr, to.scope = from.addr, from.scope
		}
	}
	before, err := received(s.fd)
	if err != nil {
		return false, err
	}
	if _, err := sys.Sendmsg(fd, m.data, nil, to.sockaddr(s.family()), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
		return false, fmt.Errorf("sending %d bytes from %s to %s: %w", len(m.data), from, to, err)
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		now, err := received(s.fd)
		if err != nil {
			return false, err
		}
		if now > before {
			return true, nil
		}
	}
	return false, nil
}

// received gives the memory of what waits in a socket (SO_MEMINFO, Linux 4.6;
// SK_MEMINFO_RMEM_ALLOC is its first word).
func received(fd int) (uint32, error) {
	var b [64]byte
	n, err := sys.Getsockopt(fd, unix.SOL_SOCKET, unix.SO_MEMINFO, b[:])
	if err == nil && n < 4 {
		err = errors.New("too short")
	}
	if err != nil {
		return 0, fmt.Errorf("SO_MEMINFO: %w", err)
	}
	return nativeUint32(b[:]), nil
}
