package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// include/uapi/linux/inet_diag.h (Linux 2.6.14; the request's second version
// 3.3, INET_DIAG_SHUTDOWN 3.7, INET_DIAG_REQ_PROTOCOL 5.9).
const (
	inetReqSize  = 56 // struct inet_diag_req_v2
	inetMsgSize  = 72 // struct inet_diag_msg
	inetShutdown = 8  // INET_DIAG_SHUTDOWN
)

// Inet is what the monitor tells of a TCP or UDP socket.
type Inet struct {
	Family   uint8
	State    uint8 // TCP_
	Src, Dst netip.AddrPort
	Ifindex  uint32 // bound device, or the scope of a link-local address
	RQueue   uint32 // bytes to read; of a listener, connections not yet accepted
	WQueue   uint32 // bytes sent and not acknowledged; of a listener, its backlog
	UID      uint32
	Ino      uint32 // 0 when no descriptor refers to it
	Shutdown uint8  // RCV_SHUTDOWN 1, SEND_SHUTDOWN 2
}

func inetReq(family, proto uint8, states uint32) []byte {
	b := make([]byte, inetReqSize)
	b[0], b[1], b[2] = family, proto, 1<<(inetShutdown-1)
	native.PutUint32(b[4:], states)
	native.PutUint64(b[48:], ^uint64(0)) // no cookie
	return b
}

// ListInet gives the sockets of a family and protocol (IPPROTO_TCP, _UDP,
// _UDPLITE) whose state is among the bits of states (1<<TCP_LISTEN …).
func ListInet(family, proto uint8, states uint32) ([]Inet, error) {
	return list(inetReq(family, proto, states), ParseInet)
}

// GetTCP gives the TCP socket of exactly these two addresses, a listener at src
// when there is no connection; an error that is unix.ENOENT says that there is
// neither.
func GetTCP(src, dst netip.AddrPort, ifindex uint32) (Inet, error) {
	req := tcpReq(src, dst, ifindex)
	c, err := open()
	if err != nil {
		return Inet{}, err
	}
	defer c.close()
	var out Inet
	seen := false
	err = c.ask(req, false, func(b []byte) (err error) {
		out, err = ParseInet(b)
		seen = true
		return err
	})
	if err == nil && !seen {
		err = errors.New("sock_diag: no answer")
	}
	return out, err
}

// tcpReq asks for one connection. The lookup is that of a packet which arrives at
// the socket: the monitor's source is the socket's own address.
func tcpReq(src, dst netip.AddrPort, ifindex uint32) []byte {
	family := uint8(unix.AF_INET)
	if src.Addr().Is6() {
		family = unix.AF_INET6
	}
	req := inetReq(family, unix.IPPROTO_TCP, ^uint32(0))
	binary.BigEndian.PutUint16(req[8:], src.Port())
	binary.BigEndian.PutUint16(req[10:], dst.Port())
	copy(req[12:28], src.Addr().AsSlice())
	copy(req[28:44], dst.Addr().AsSlice())
	native.PutUint32(req[44:], ifindex)
	return req
}

// sockDestroy is SOCK_DESTROY (include/uapi/linux/sock_diag.h, Linux 4.5,
// CONFIG_INET_DIAG_DESTROY).
const sockDestroy = 21

// DestroyTCP ends what the kernel keeps of a connection that no descriptor
// refers to any more (FIN_WAIT, TIME_WAIT). A connection that is in use is left
// alone: the error is then unix.EBUSY. It needs CAP_NET_ADMIN.
func DestroyTCP(src, dst netip.AddrPort, ifindex uint32) error {
	g, err := GetTCP(src, dst, ifindex)
	if err != nil {
		return err
	}
	if g.Ino != 0 || g.Src != src || g.Dst != dst {
		return fmt.Errorf("sock_diag: destroying %v to %v: %w", src, dst, unix.EBUSY)
	}
	c, err := open()
	if err != nil {
		return err
	}
	defer c.close()
	return c.send(sockDestroy, tcpReq(src, dst, ifindex), false, func([]byte) error { return nil })
}

// ParseInet parses a struct inet_diag_msg and its attributes.
func ParseInet(b []byte) (Inet, error) {
	if len(b) < inetMsgSize || (b[0] != unix.AF_INET && b[0] != unix.AF_INET6) {
		return Inet{}, fmt.Errorf("sock_diag: inet message of %d bytes", len(b))
	}
	s := Inet{Family: b[0], State: b[1]}
	addr := func(at int) netip.Addr {
		if s.Family == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[at:]))
		}
		return netip.AddrFrom16([16]byte(b[at:]))
	}
	be := binary.BigEndian
	s.Src = netip.AddrPortFrom(addr(8), be.Uint16(b[4:]))
	s.Dst = netip.AddrPortFrom(addr(24), be.Uint16(b[6:]))
	s.Ifindex = native.Uint32(b[40:])
	s.RQueue, s.WQueue = native.Uint32(b[56:]), native.Uint32(b[60:])
	s.UID, s.Ino = native.Uint32(b[64:]), native.Uint32(b[68:])
	err := attrs(b[inetMsgSize:], func(typ uint16, v []byte) {
		if typ == inetShutdown && len(v) > 0 {
			s.Shutdown = v[0]
		}
	})
	return s, err
}
