package resource

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// The queue of a unix socket, read without taking anything out of it: from the
// kernel's memory (sock_queue_kernel.go) where there are several messages and none
// has descriptors; else by MSG_PEEK, and for what lies behind the first message
// SO_PEEK_OFF (Linux 3.4), which is set back at once. Peeking at a message with descriptors makes duplicates of
// these in this process; they are collected like any task's.
//
// Two things must be known before a receive, because it would tell an error that
// is meant for the program: whether one waits (POLLERR), and how much there is
// (SIOCINQ), so that no stream is read beyond its end.
//
// Credentials are shown only to a socket with SO_PASSCRED, so those in a message
// to another are not saved. A message of no bytes behind another one is not
// shown to who peeks a second time (skb->peeked), so that of a program that has
// been checkpointed before and left running it is not saved.

const (
	oobSpace  = 8192 // SCM_MAX_FD descriptors, credentials, label, timestamps
	peekChunk = 1 << 20
	dgramBuf  = 256 << 10
)

// queue saves the messages that wait in a socket.
func (s *unixSock) queue(d *Dump, fd int) error {
	stream := s.entry.GetType() == unix.SOCK_STREAM
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI}}
	if _, err := unix.Poll(p, 0); err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	ready := p[0].Revents
	total, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return fmt.Errorf("bytes to read: %w", err)
	}
	if ready&unix.POLLERR != 0 {
		d.sockExtra(s.f).Error = proto.Bool(true)
		if !stream && total > 0 {
			d.NotNow(s.f, "messages wait behind an error that the program has not been told", "let the program read from the socket first")
			return nil
		}
		if !stream {
			return nil
		}
	}
	if (stream && total == 0) || ready&unix.POLLIN == 0 {
		return nil
	}
	r := &peeker{d: d, s: s, fd: fd, oob: make([]byte, oobSpace), from: make([]byte, 128)}
	if r.off, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF); err != nil {
		return fmt.Errorf("SO_PEEK_OFF: %w", err)
	}
	if stream {
		err = r.stream(total, ready&unix.POLLPRI != 0)
	} else if r.got, err = s.viewDatagrams(d, fd); errors.Is(err, kmem.ErrUnavailable) {
		err = r.datagrams(total)
	}
	if r.back != nil {
		err = errors.Join(err, r.back())
	}
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	for _, m := range r.got {
		d.addMessage(s.f, m)
	}
	return nil
}

// peeker reads one queue.
type peeker struct {
	d         *Dump
	s         *unixSock
	fd        int
	oob, from []byte
	off       int          // the program's SO_PEEK_OFF
	back      func() error // sets it back
	got       []*sockMessage
}

// seek makes the next peek begin n bytes into the queue.
func (r *peeker) seek(n int) error {
	if r.back == nil {
		back, err := r.d.guarded(r.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, n, r.off)
		r.back = back
		return err
	}
	return unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF, n)
}

// peek receives once. The message has what came with the data; keep tells
// whether descriptors are wanted.
func (r *peeker) peek(buf []byte, flags int, keep bool) (sys.Received, *sockMessage, error) {
	m := &sockMessage{}
	got, err := sys.Recvmsg(r.fd, buf, r.oob, r.from, unix.MSG_PEEK|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC|flags)
	if err != nil {
		return got, nil, err
	}
	if got.Name > 2 {
		m.addr = append([]byte(nil), r.from[:got.Name]...)
	}
	if err := r.control(m, r.oob[:got.OOB], keep); err != nil {
		return got, nil, err
	}
	if got.Flags&unix.MSG_CTRUNC != 0 {
		return got, nil, fmt.Errorf("descriptors in flight do not fit into this process's limit: %w", unix.EMFILE)
	}
	return got, m, nil
}

// control takes a message's ancillary data.
func (r *peeker) control(m *sockMessage, oob []byte, keep bool) error {
	cs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("ancillary data: %w", err)
	}
	for i := range cs {
		h := &cs[i].Header
		if h.Level != unix.SOL_SOCKET {
			continue
		}
		switch h.Type {
		case unix.SCM_RIGHTS:
			fds, err := unix.ParseUnixRights(&cs[i])
			if err != nil {
				return err
			}
			if err := r.inFlight(m, fds, keep); err != nil {
				return err
			}
		case unix.SCM_CREDENTIALS:
			c, err := unix.ParseUnixCredentials(&cs[i])
			if err != nil {
				return err
			}
			if c.Pid != 0 {
				m.cred = c
			}
		case scmPidfd: // made anew from the credentials at each receive
			if len(cs[i].Data) >= 4 {
				unix.Close(int(int32(nativeUint32(cs[i].Data))))
			}
		}
	}
	return nil
}

const scmPidfd = 4 // SCM_PIDFD, include/linux/socket.h, Linux 6.5

// carrierKey finds the socket in whose queue a file is, for messages, by this
// process's descriptor of the file.
type carrierKey struct{ fd int }

// inFlight collects descriptors that came out of a queue.
func (r *peeker) inFlight(m *sockMessage, fds []int, keep bool) error {
	if !keep {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil
	}
	for i, fd := range fds {
		r.d.values[carrierKey{fd}] = r.s.f
		f, _, err := r.d.File(os.Getpid(), fd)
		if f == nil || f.PID != os.Getpid() || f.FD != fd {
			unix.Close(fd) // known already, by another descriptor
		} else {
			r.d.CloseLater(fd)
		}
		if err != nil {
			for _, fd := range fds[i+1:] {
				unix.Close(fd)
			}
			return fmt.Errorf("descriptor in flight: %w", err)
		}
		if f != nil { // else refused
			m.fds = append(m.fds, f.ID)
		}
	}
	return nil
}

// stream reads a stream's total bytes. A piece ends where descriptors came with
// its last bytes, where the credentials change, and before an urgent byte.
func (r *peeker) stream(total int, urgent bool) error {
	if urgent {
		return r.urgentStream(total)
	}
	buf := make([]byte, min(total, peekChunk))
	for at := 0; at < total; {
		if at > 0 || r.off >= 0 {
			if err := r.seek(at); err != nil {
				return err
			}
		}
		n, m, err := r.peek(buf[:min(len(buf), total-at)], 0, true)
		if err != nil {
			return fmt.Errorf("%d of %d bytes read: %w", at, total, err)
		}
		if n.N == 0 {
			return fmt.Errorf("%d bytes of %d are there", at, total)
		}
		m.data = append([]byte(nil), buf[:n.N]...)
		m.addr = nil // the peer's, of every piece
		r.got = append(r.got, m)
		at += n.N
	}
	return nil
}

// urgentStream reads a stream with an urgent byte (MSG_OOB, Linux 5.15) that has
// not been received. A read stops before it; what follows is shown only to a
// read that begins there, and then the byte is its first. When it is the first
// of all, peeks leave it out, unless SO_OOBINLINE is set.
func (r *peeker) urgentStream(total int) error {
	inline, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_OOBINLINE)
	if err != nil {
		return fmt.Errorf("SO_OOBINLINE: %w", err)
	}
	at, err := unix.IoctlGetInt(r.fd, unix.SIOCATMARK)
	if err != nil {
		return fmt.Errorf("SIOCATMARK: %w", err)
	}
	mark, buf := -1, make([]byte, total)
	if at != 0 {
		mark = 0
		if inline == 0 {
			buf = buf[1:]
		}
	}
	n, m, err := r.peek(buf, 0, false)
	switch {
	case err == unix.EAGAIN && len(buf) == 0:
	case err != nil:
		return err
	case mark < 0 && n.N < total:
		mark = n.N
	}
	if mark < 0 || (m != nil && (len(m.fds) > 0 || m.cred != nil)) {
		return r.refuse()
	}
	var all []byte
	switch {
	case mark > 0:
		all = make([]byte, total)
		copy(all, buf[:mark])
		for got := mark; got < total; {
			if err := r.seek(got); err != nil {
				return err
			}
			n, m, err := r.peek(all[got:], 0, false)
			if err != nil || n.N == 0 {
				return fmt.Errorf("%d of %d bytes read: %w", got, total, err)
			}
			if len(m.fds) > 0 || m.cred != nil {
				return r.refuse()
			}
			got += n.N
		}
	case inline != 0:
		all = buf[:n.N]
	default:
		var b [1]byte
		if _, err := sys.Recvmsg(r.fd, b[:], nil, nil, unix.MSG_OOB|unix.MSG_PEEK|unix.MSG_DONTWAIT); err != nil {
			return fmt.Errorf("urgent byte: %w", err)
		}
		all = append(b[:], buf[:n.N]...)
	}
	if len(all) != total {
		return r.refuse()
	}
	add := func(b []byte, oob bool) {
		if len(b) > 0 {
			r.got = append(r.got, &sockMessage{data: b, oob: oob})
		}
	}
	add(all[:mark], false)
	add(all[mark:mark+1], true)
	add(all[mark+1:], false)
	return nil
}

// refuse gives up on an urgent byte among messages with descriptors or
// credentials: where exactly it stands cannot be read from outside.
func (r *peeker) refuse() error {
	r.d.NotNow(r.s.f, "an urgent byte (MSG_OOB) waits among messages with descriptors or credentials", "let the program receive them first")
	return nil
}

// datagrams reads messages until there is none.
func (r *peeker) datagrams(total int) error {
	packets := r.s.entry.GetType() == unix.SOCK_SEQPACKET
	over := r.s.diag.Shutdown&1 != 0
	if err := r.seek(0); err != nil {
		return err
	}
	buf := make([]byte, dgramBuf)
	for read := 0; ; {
		if packets && over && read >= total {
			return nil // the next would be the end of the stream
		}
		n, m, err := r.peek(buf, 0, true)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return err
		}
		m.data = append([]byte(nil), buf[:n.N]...)
		for n.Flags&unix.MSG_TRUNC != 0 { // the rest of the same message
			if n, _, err = r.peek(buf, 0, false); err != nil {
				return err
			}
			m.data = append(m.data, buf[:n.N]...)
		}
		read += len(m.data)
		r.got = append(r.got, m)
	}
}
