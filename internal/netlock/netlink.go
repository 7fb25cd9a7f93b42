package netlock

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Batches of nf_tables messages (include/uapi/linux/netfilter/nfnetlink.h): all
// of a batch is done, or nothing.

var native = binary.NativeEndian

// attr makes an attribute (struct nlattr, include/uapi/linux/netlink.h).
func attr(typ uint16, v []byte) []byte {
	b := native.AppendUint16(nil, uint16(unix.SizeofNlAttr+len(v)))
	b = append(native.AppendUint16(b, typ), v...)
	return append(b, make([]byte, -len(b)&3)...)
}

func attrString(typ uint16, s string) []byte { return attr(typ, append([]byte(s), 0)) }

// attr32 makes an attribute with a number, which nf_tables has in network order.
func attr32(typ uint16, v uint32) []byte { return attr(typ, binary.BigEndian.AppendUint32(nil, v)) }

func nest(typ uint16, in ...[]byte) []byte {
	var b []byte
	for _, a := range in {
		b = append(b, a...)
	}
	return attr(typ|unix.NLA_F_NESTED, b)
}

// expr makes an expression of a rule.
func expr(name string, in ...[]byte) []byte {
	return nest(unix.NFTA_LIST_ELEM, attrString(unix.NFTA_EXPR_NAME, name), nest(unix.NFTA_EXPR_DATA, in...))
}

// batch gathers messages.
type batch struct {
	b    []byte
	seq  uint32
	last int // where the last message begins
}

// message appends a message with its struct nfgenmsg.
func (m *batch) message(typ, flags uint16, family uint8, res uint16, in ...[]byte) {
	m.last = len(m.b)
	m.seq++
	m.b = native.AppendUint32(m.b, 0)
	m.b = native.AppendUint16(m.b, typ)
	m.b = native.AppendUint16(m.b, flags|unix.NLM_F_REQUEST)
	m.b = native.AppendUint32(m.b, m.seq)
	m.b = native.AppendUint32(m.b, 0)
	m.b = append(m.b, family, unix.NFNETLINK_V0)
	m.b = binary.BigEndian.AppendUint16(m.b, res)
	for _, a := range in {
		m.b = append(m.b, a...)
	}
	native.PutUint32(m.b[m.last:], uint32(len(m.b)-m.last))
}

// add appends a message of nf_tables.
func (m *batch) add(typ, flags uint16, in ...[]byte) {
	if m.seq == 0 {
		m.message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	}
	m.message(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, unix.NFPROTO_INET, 0, in...)
}

// send sends the batch and waits for the answer to its last message, which comes
// behind all errors.
func (m *batch) send() error {
	native.PutUint16(m.b[m.last+6:], native.Uint16(m.b[m.last+6:])|unix.NLM_F_ACK)
	want := m.seq
	m.message(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	fd, err := open(len(m.b))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, m.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("nfnetlink: %w", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("nfnetlink: %w", err)
		}
		if done, err := answer(buf[:n], want); done || err != nil {
			return err
		}
	}
}

// open makes a socket for a batch of so many bytes.
func open(size int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return -1, ErrUnsupported
	}
	if err != nil {
		return -1, fmt.Errorf("nfnetlink: %w", err)
	}
	// An answer comes at once or never; never must not hang.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("nfnetlink: %w", err)
	}
	// A batch must go out in one piece.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*size+64<<10)
	return fd, nil
}

// answer goes through the messages of one read: done is true when the message
// with the number last was carried out.
func answer(b []byte, last uint32) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(native.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return false, fmt.Errorf("nfnetlink: message of %d bytes in %d", size, len(b))
		}
		if native.Uint16(b[4:]) == unix.NLMSG_ERROR && size >= unix.NLMSG_HDRLEN+4 {
			switch e := int32(native.Uint32(b[unix.NLMSG_HDRLEN:])); {
			case e == -int32(unix.EOPNOTSUPP) || e == -int32(unix.EINVAL) && native.Uint32(b[8:]) == 1:
				return false, ErrUnsupported // nobody knows the subsystem
			case e != 0:
				return false, fmt.Errorf("nfnetlink: %w", unix.Errno(-e))
			case native.Uint32(b[8:]) == last:
				return true, nil
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false, nil
}
