package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Repair mode (TCP_REPAIR): the send queue can be read, the sequence numbers can
// be read and set, connect(2) makes a connection without a packet, close(2) ends
// it without one. A connection that stays in it would stall and answer its program
// with EPERM, and entering it forgets SO_REUSEADDR. So a program's connections
// enter it only where the kernel's memory cannot be read (sock_tcp_kernel.go): both
// are guarded then, and the mode is left again within microseconds, without the
// window probe that leaving it sends by default (TCP_REPAIR_OFF_NO_WP, Linux 4.19).

// Values for TCP_REPAIR_QUEUE (include/uapi/linux/tcp.h).
const (
	tcpNoQueue   = 0
	tcpRecvQueue = 1
	tcpSendQueue = 2
)

// repaired is a connection in repair mode.
type repaired struct {
	s    *inetSock
	fd   int
	back []func() error
}

func (d *Dump) enterRepair(s *inetSock) (connReader, func(), error) {
	fd, done, err := s.f.borrow()
	if err != nil {
		return nil, nil, err
	}
	r := &repaired{s: s, fd: fd}
	reuse, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR)
	if err == nil && reuse != 0 {
		// Nothing changes by this, but the guardian knows what to set.
		var back func() error
		if back, err = d.guarded(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse, reuse); err == nil {
			r.back = append(r.back, back)
		}
	}
	if err == nil {
		var back func() error
		if back, err = d.guarded(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON, unix.TCP_REPAIR_OFF_NO_WP); err == nil {
			r.back = append(r.back, back)
		}
	}
	if err != nil {
		err = errors.Join(err, r.leave())
		done()
		return nil, nil, err
	}
	return r, done, nil
}

// leave leaves repair mode, if it was entered, and then sets SO_REUSEADDR.
func (r *repaired) leave() error {
	var errs []error
	for i := len(r.back) - 1; i >= 0; i-- {
		errs = append(errs, r.back[i]())
	}
	r.back = nil
	return errors.Join(errs...)
}

func (r *repaired) queue(q int) error {
	if err := unix.SetsockoptInt(r.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, q); err != nil {
		return fmt.Errorf("TCP_REPAIR_QUEUE: %w", err)
	}
	return nil
}

func (r *repaired) seq() (uint32, error) {
	v, err := unix.GetsockoptInt(r.fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
	if err != nil {
		return 0, fmt.Errorf("TCP_QUEUE_SEQ: %w", err)
	}
	return uint32(v), nil
}

// window reads TCP_REPAIR_WINDOW (Linux 4.8).
func (r *repaired) window() (v []uint32, err error) {
	var w [repairWindowLen]byte
	n, err := sys.Getsockopt(r.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, w[:])
	switch {
	case err == unix.ENOPROTOOPT:
		return nil, nil
	case err != nil || n != len(w):
		return nil, fmt.Errorf("TCP_REPAIR_WINDOW (%d bytes): %w", n, err)
	}
	for k := 0; k < len(w); k += 4 {
		v = append(v, binary.NativeEndian.Uint32(w[k:]))
	}
	return v, nil
}

// mss reads TCP_MAXSEG, which in repair mode is what the handshake agreed on.
func (r *repaired) mss() (uint32, error) {
	v, err := unix.GetsockoptInt(r.fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	if err != nil {
		return 0, fmt.Errorf("TCP_MAXSEG: %w", err)
	}
	return uint32(v), nil
}

// unacknowledged reads what was sent and not acknowledged, how much at its end
// was not even sent, and the sequence number behind it, the end of the stream not
// counted. The peer may acknowledge meanwhile: the program cannot send, so the
// end stays where it is, and what is read beyond that is sent twice, which does
// no harm.
func (r *repaired) unacknowledged() (b []byte, unsent int, end uint32, err error) {
	if err := r.queue(tcpSendQueue); err != nil {
		return nil, 0, 0, err
	}
	defer func() { err = errors.Join(err, r.queue(tcpNoQueue)) }()
	if end, err = r.seq(); err != nil {
		return nil, 0, 0, err
	}
	n, err := unix.IoctlGetInt(r.fd, unix.SIOCOUTQ)
	if err != nil {
		return nil, 0, 0, err
	}
	if unsent, err = unix.IoctlGetInt(r.fd, siocOutqNsd); err != nil {
		return nil, 0, 0, fmt.Errorf("SIOCOUTQNSD: %w", err)
	}
	if sentFIN(r.s.state()) {
		end--
		unsent = max(unsent-1, 0)
		if unackedFIN(r.s.state()) {
			n--
		}
	}
	if n > 0 {
		// The first buffer is there as a whole until its last byte is
		// acknowledged; there must be room for all, or the call fails.
		b = make([]byte, n+(1<<20))
		got, _, err := unix.Recvfrom(r.fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != nil {
			return nil, 0, 0, fmt.Errorf("peeking at the send queue: %w", err)
		}
		if b = b[:got]; got > n {
			b = b[got-n:]
		}
	}
	return b, min(unsent, len(b)), end, nil
}

// urgent: no call tells.
func (r *repaired) urgent(uint32, int, uint32, int) (urgency, error) {
	return urgency{-1, -1, false}, nil
}

// received reads the receive queue and the sequence number behind it.
func (r *repaired) received() ([]byte, uint32, error) {
	if err := r.queue(tcpRecvQueue); err != nil {
		return nil, 0, err
	}
	for range 100 {
		before, err := r.seq()
		if err != nil {
			return nil, 0, err
		}
		b, err := peekStream(r.fd, 0)
		if err != nil {
			return nil, 0, err
		}
		after, err := r.seq()
		if err != nil {
			return nil, 0, err
		}
		if before == after {
			if gotFIN(r.s.state()) {
				after--
			}
			return b, after, nil
		}
	}
	return nil, 0, errors.New("what is received does not come to rest")
}

// saveUnacked is saveStream of a connection with bytes that are not acknowledged.
// Each send queue is read before the other end's receive queue: what moves on
// meanwhile is then in both, and counted once.
func (d *Dump) saveUnacked(s, peer *inetSock) error {
	var ends [2]connReader
	both := []*inetSock{s, peer}
	for i, x := range both {
		r, done, err := d.examineTCP(x)
		if err != nil {
			if i > 0 {
				err = errors.Join(err, ends[0].leave())
			}
			if errors.Is(err, unix.EPERM) {
				return d.waitDrained(s, peer)
			}
			return fmt.Errorf("its queues: %w", err)
		}
		defer done()
		ends[i] = r
	}
	var in, out [2][]byte
	var inSeq, outSeq [2]uint32
	var err error
	for i, r := range ends {
		if err == nil {
			out[i], _, outSeq[i], err = r.unacknowledged()
		}
	}
	for i, r := range ends {
		if err == nil {
			in[i], inSeq[i], err = r.received()
		}
	}
	var urgent [2]urgency
	for i, r := range ends {
		if err != nil {
			break
		}
		left := int(int32(outSeq[i] - inSeq[1-i])) // sent and not received by the other
		if left < 0 || left > len(out[i]) {
			err = fmt.Errorf("%d bytes are on their way, %d in the send queue", left, len(out[i]))
			break
		}
		out[i] = out[i][len(out[i])-left:]
		urgent[i], err = r.urgent(inSeq[i], len(in[i]), outSeq[i], left)
	}
	if err = errors.Join(err, ends[0].leave(), ends[1].leave()); err != nil {
		return err
	}
	for i, x := range both {
		d.addStream(x, in[i], out[i], inSeq[i], outSeq[i])
		d.addUrgent(x, urgent[i])
	}
	return nil
}

// ackTime is longer than any acknowledgement is delayed (TCP_DELACK_MAX, 200 ms).
const ackTime = 300 * time.Millisecond

// waitDrained is saveRepaired for those who may not repair: it waits until all
// is acknowledged.
func (d *Dump) waitDrained(s, peer *inetSock) error {
	end := time.Now().Add(ackTime)
	for {
		left := 0
		for _, x := range []*inetSock{s, peer} {
			fd, done, err := x.f.borrow()
			if err != nil {
				return err
			}
			x.tcp.outq, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
			done()
			if err != nil {
				return err
			}
			left += max(0, x.unacked())
		}
		if left == 0 {
			return d.saveStream(s, peer)
		}
		if time.Now().After(end) {
			if s.mptcp() || peer.mptcp() {
				d.NotNow(s.f, fmt.Sprintf("%d bytes have been sent over the MPTCP connection from %s to %s and not received", left, s.src, s.dst), "let the program read what it is sent")
				return nil
			}
			d.Refusal(s.f, fmt.Sprintf("%d bytes have been sent over the TCP connection from %s to %s and not received: only who has CAP_NET_ADMIN can save them", left, s.src, s.dst),
				"let the program read what it is sent, or run fermata as root")
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// BeforeKill sees to it that connections end without a word when the tasks are
// killed: with packets, an end that dies later than the other would go on to exist
// in the kernel for a minute, and keep the addresses from being used again. It
// keeps the connections; done, which must be called when the tasks are dead, makes
// them end with Close. Until then nothing is changed, so that a program that is
// not killed after all finds all of them as they were.
func (d *Dump) BeforeKill() (done func() error, err error) {
	v, ok := d.values[inetDumpKey{}]
	if !ok {
		return func() error { return nil }, nil
	}
	if d.netLock != "" {
		d.lockBelongs()
	}
	var kept []*inetSock
	for _, s := range v.(*inetDump).order {
		if s.tcp == nil || !s.dst.addr.IsValid() {
			continue
		}
		if _, e := s.f.Dup(); e != nil { // keeps the connection until Close
			err = errors.Join(err, e)
			continue
		}
		kept = append(kept, s)
	}
	return func() error {
		if d.netLock != "" {
			d.keepLock = true
			d.lockReleased() // from now on it must outlive this process
		}
		var errs []error
		for _, s := range kept {
			faultpoint.At("kill.connection")
			err := unix.SetsockoptInt(s.f.dup, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON)
			if errors.Is(err, unix.EPERM) || s.mptcp() {
				// Next best: a reset, which leaves nothing behind either.
				err = unix.SetsockoptLinger(s.f.dup, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.f, err))
			}
		}
		return errors.Join(errs...)
	}, err
}
