// Package sockdiag asks the kernel's socket monitor (NETLINK_SOCK_DIAG,
// sock_diag(7), Linux 3.3) for what no call on a socket itself tells: who its
// peer is, what waits to be accepted, how it was shut down.
//
// An answer covers the network namespace of the calling thread. The listing is
// not one instant's: sockets of running programs may come and go meanwhile.
package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrUnsupported: this kernel has no monitor for that family.
var ErrUnsupported = errors.New("no socket monitor in this kernel")

var native = binary.NativeEndian

// buffer is how much one read takes; the kernel fills at most 32 KiB a message.
const buffer = 64 << 10

// conn is an open monitor socket.
type conn struct {
	fd  int
	buf []byte
	seq uint32
}

func open() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	// An answer comes at once or never; never must not hang.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	return &conn{fd: fd, buf: make([]byte, buffer)}, nil
}

func (c *conn) close() { unix.Close(c.fd) }

// ask sends one SOCK_DIAG_BY_FAMILY request and hands the body of every answer
// to f. With dump it asks for all that match, else for one socket.
func (c *conn) ask(req []byte, dump bool, f func(body []byte) error) error {
	return c.send(unix.SOCK_DIAG_BY_FAMILY, req, dump, f)
}

func (c *conn) send(typ uint16, req []byte, dump bool, f func(body []byte) error) error {
	c.seq++
	flags := uint16(unix.NLM_F_REQUEST)
	if dump {
		flags |= unix.NLM_F_DUMP
	} else {
		flags |= unix.NLM_F_ACK
	}
	msg := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(req))
	native.PutUint32(msg[0:], uint32(unix.NLMSG_HDRLEN+len(req)))
	native.PutUint16(msg[4:], typ)
	native.PutUint16(msg[6:], flags)
	native.PutUint32(msg[8:], c.seq)
	if err := unix.Sendto(c.fd, append(msg, req...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sock_diag: %w", err)
	}
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("sock_diag: %w", err)
		}
		end, err := messages(c.buf[:n], c.seq, f)
		if end || err != nil {
			return err
		}
	}
}

// messages goes through the netlink messages of one read.
func messages(b []byte, seq uint32, f func(body []byte) error) (end bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int64(native.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > int64(len(b)) {
			return true, fmt.Errorf("sock_diag: message of %d bytes in %d", size, len(b))
		}
		body := b[unix.NLMSG_HDRLEN:size]
		typ, own := native.Uint16(b[4:]), native.Uint32(b[8:]) == seq
		switch {
		case !own: // left over from a request that failed half-way
		case typ == unix.NLMSG_DONE:
			return true, nil
		case typ == unix.NLMSG_ERROR:
			if len(body) < 4 {
				return true, errors.New("sock_diag: error without a number")
			}
			return true, failure(int32(native.Uint32(body)))
		case typ == unix.SOCK_DIAG_BY_FAMILY:
			if err := f(body); err != nil {
				return true, err
			}
		}
		b = b[min(len(b), int(size+3)&^3):]
	}
	return false, nil
}

func failure(e int32) error {
	if e == 0 {
		return nil
	}
	n := unix.Errno(-e)
	return fmt.Errorf("sock_diag: %w", n)
}

// nlaTypeMask is NLA_TYPE_MASK, which leaves out the nested and byte-order
// flags.
const nlaTypeMask = 0x3fff

// attrs calls f for every attribute of a message (struct nlattr,
// include/uapi/linux/netlink.h).
func attrs(b []byte, f func(typ uint16, v []byte)) error {
	for len(b) >= unix.SizeofNlAttr {
		size := int(native.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return fmt.Errorf("sock_diag: attribute of %d bytes in %d", size, len(b))
		}
		f(native.Uint16(b[2:])&nlaTypeMask, b[unix.SizeofNlAttr:size])
		b = b[min(len(b), (size+3)&^3):]
	}
	if len(b) != 0 {
		return fmt.Errorf("sock_diag: %d bytes behind the attributes", len(b))
	}
	return nil
}

// list asks for everything and parses it.
func list[T any](req []byte, parse func([]byte) (T, error)) ([]T, error) {
	c, err := open()
	if err != nil {
		return nil, err
	}
	defer c.close()
	var out []T
	err = c.ask(req, true, func(b []byte) error {
		v, err := parse(b)
		if err == nil {
			out = append(out, v)
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		// The family's handler is missing; for a listing nothing else is.
		err = fmt.Errorf("%w (family %d, protocol %d)", ErrUnsupported, req[0], req[1])
	}
	return out, err
}
