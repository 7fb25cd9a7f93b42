package probe

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

func askTCPRepair() Result {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return unsure("make a TCP socket", err)
	}
	defer unix.Close(fd)
	return byErrno("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1))
}

func askKernelMemory() Result {
	r, err := kmem.Open()
	if errors.Is(err, unix.ENOENT) {
		return no(err.Error())
	}
	if err != nil {
		return byErrno("open", err)
	}
	defer r.Close()
	if r.Task().Ptr("files", "files_struct"); r.Err() != nil {
		return no("it has no BTF of its tasks")
	}
	return yes("")
}

// The requests of the probes below select no socket state, so that the answer
// is an empty dump, whatever the machine does.

func askUnixDiag() Result {
	req := make([]byte, 24) // struct unix_diag_req, uapi/linux/unix_diag.h
	req[0] = unix.AF_UNIX
	return byErrno("sock_diag", diagDump(req))
}

func askInetDiag() Result {
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		req := make([]byte, 56) // struct inet_diag_req_v2, uapi/linux/inet_diag.h
		req[0], req[1] = unix.AF_INET, proto
		if err := diagDump(req); err != nil {
			name := "TCP"
			if proto == unix.IPPROTO_UDP {
				name = "UDP"
			}
			return byErrno("sock_diag", fmt.Errorf("%s: %w", name, err))
		}
	}
	return yes("")
}

// diagDump sends one SOCK_DIAG_BY_FAMILY dump request and reads until its end.
// A kernel without the family's handler answers ENOENT, which is given as
// ENOSYS.
func diagDump(req []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	defer unix.Close(fd)
	// An answer comes at once or never; never must not hang.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return fmt.Errorf("receive timeout: %w", err)
	}
	msg := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(req))
	binary.NativeEndian.PutUint32(msg[0:], uint32(unix.NLMSG_HDRLEN+len(req)))
	binary.NativeEndian.PutUint16(msg[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(msg[8:], 1) // sequence number
	msg = append(msg, req...)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	buf := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		end, err := diagEnd(buf[:n])
		if end || err != nil {
			return err
		}
	}
}

// diagEnd looks through netlink messages for the end of a dump or an error.
func diagEnd(b []byte) (end bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := binary.NativeEndian.Uint32(b)
		if size < unix.NLMSG_HDRLEN || uint64(size) > uint64(len(b)) {
			return true, fmt.Errorf("netlink message of %d bytes in %d", size, len(b))
		}
		body := b[unix.NLMSG_HDRLEN:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return true, errors.New("netlink error without a number")
			}
			e := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			if e == unix.ENOENT {
				e = unix.ENOSYS
			}
			return true, errOrNil(e)
		}
		b = b[min(len(b), (int(size)+3)&^3):]
	}
	return false, nil
}
