package resource

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/netlock"
)

// Segments as a peer would send them (RFC 9293), by a raw socket whose packets
// have headers of our own (raw(7); IPPROTO_RAW with IPv6 likewise).

const (
	tcpFIN = 1
	tcpACK = 16
	tcpURG = 32
)

// play gives a connection in repair mode a segment from its peer; with tcpURG its
// data begins with an urgent byte.
func (s *inetEnd) play(seq, ack uint32, flags byte, data ...byte) error {
	from, to := s.dst.same(), s.src.same()
	window := min(s.stream.GetSndWnd()>>s.stream.GetSndWscale(), 0xffff)
	p := append(make([]byte, 20), data...)
	be := binary.BigEndian
	be.PutUint16(p, from.Port())
	be.PutUint16(p[2:], to.Port())
	be.PutUint32(p[4:], seq)
	be.PutUint32(p[8:], ack)
	p[12], p[13] = 5<<4, flags|tcpACK
	be.PutUint16(p[14:], uint16(window))
	if flags&tcpURG != 0 {
		be.PutUint16(p[18:], 1) // as most systems mean it: the byte before is the one
	}
	src, dst := from.Addr().AsSlice(), to.Addr().AsSlice()
	be.PutUint16(p[16:], checksum(append(append(append([]byte(nil), src...), dst...), 0, unix.IPPROTO_TCP, 0, byte(len(p))), p))
	family := unix.AF_INET
	var addr unix.Sockaddr
	var head []byte
	if to.Addr().Is4() {
		head = make([]byte, 20)
		head[0], head[8], head[9] = 4<<4|5, 64, unix.IPPROTO_TCP
		be.PutUint16(head[2:], uint16(len(head)+len(p)))
		copy(head[12:], src)
		copy(head[16:], dst)
		addr = &unix.SockaddrInet4{Addr: to.Addr().As4()}
	} else {
		family = unix.AF_INET6
		head = make([]byte, 40)
		head[0], head[6], head[7] = 6<<4, unix.IPPROTO_TCP, 64
		be.PutUint16(head[4:], uint16(len(p)))
		copy(head[8:], src)
		copy(head[24:], dst)
		addr = &unix.SockaddrInet6{Addr: to.Addr().As16(), ZoneId: s.src.scope}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, netlock.Mark); err != nil {
		return fmt.Errorf("SO_MARK: %w", err)
	}
	// To an address of this host it is there when the call returns, or soon.
	if err := unix.Sendto(fd, append(head, p...), 0, addr); err != nil {
		return fmt.Errorf("playing the peer's segment: %w", err)
	}
	return nil
}

// checksum is the internet's (RFC 1071), over what has, but for the last, an even
// length each.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for i := 0; i+1 < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if n := len(b); n%2 != 0 {
			sum += uint32(b[n-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
