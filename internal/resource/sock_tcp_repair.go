package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Repair mode (TCP_REPAIR): the send queue can be read, the sequence numbers can
// be read and set, connect(2) makes a connection without a packet, close(2) ends
// it without one. A connection that stays in it would stall, and entering it
// forgets SO_REUSEADDR: both are guarded, and the mode is left again within
// microseconds, without the window probe that leaving it sends by default
// (TCP_REPAIR_OFF_NO_WP, Linux 4.19).

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

func (d *Dump) enterRepair(s *inetSock) (*repaired, func(), error) {
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

// sent reads the send queue and the sequence number behind it, the end of the
// stream, if it is sent, not counted.
func (r *repaired) sent() (b []byte, end uint32, err error) {
	if err := r.queue(tcpSendQueue); err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, r.queue(tcpNoQueue)) }()
	if end, err = r.seq(); err != nil {
		return nil, 0, err
	}
	n, err := unix.IoctlGetInt(r.fd, unix.SIOCOUTQ)
	if err != nil {
		return nil, 0, err
	}
	if n > 0 {
		b = make([]byte, n)
		if n, _, err = unix.Recvfrom(r.fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT); err != nil {
			return nil, 0, fmt.Errorf("peeking at the send queue: %w", err)
		}
	}
	if sentFIN(r.s.state()) {
		end--
	}
	return b[:n], end, nil
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

// saveRepaired is saveStream of a connection with bytes that are not
// acknowledged. Each send queue is read before the other end's receive queue:
// what moves on meanwhile is then in both, and counted once.
func (d *Dump) saveRepaired(s, peer *inetSock) error {
	var ends [2]*repaired
	for i, x := range []*inetSock{s, peer} {
		r, done, err := d.enterRepair(x)
		if errors.Is(err, unix.EPERM) {
			if i > 0 {
				err = errors.Join(err, ends[0].leave())
			}
			return d.waitDrained(s, peer)
		}
		if err != nil {
			if i > 0 {
				err = errors.Join(err, ends[0].leave())
			}
			return fmt.Errorf("repair mode: %w", err)
		}
		defer done()
		ends[i] = r
	}
	var in, out [2][]byte
	var inSeq, outSeq [2]uint32
	var err error
	for i, r := range ends {
		if err == nil {
			out[i], outSeq[i], err = r.sent()
		}
	}
	for i, r := range ends {
		if err == nil {
			in[i], inSeq[i], err = r.received()
		}
	}
	if err = errors.Join(err, ends[0].leave(), ends[1].leave()); err != nil {
		return err
	}
	for i, r := range ends {
		left := int(int32(outSeq[i] - inSeq[1-i])) // sent and not received by the other
		if left < 0 || left > len(out[i]) {
			return fmt.Errorf("%d bytes are on their way, %d in the send queue", left, len(out[i]))
		}
		d.addStream(r.s, in[i], out[i][len(out[i])-left:], inSeq[i], outSeq[i])
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

// BeforeKill makes the connections end without a word when the tasks are killed:
// with packets, an end that dies later than the other would go on to exist in
// the kernel for a minute, and keep the addresses from being used again. It must
// be called last of all, while the tasks stand still. Should this process die
// before they do, it is undone (Guard); done must be called when they are dead.
// The connections end with Close.
func (d *Dump) BeforeKill() (done func(), err error) {
	var backs []func()
	done = func() {
		for _, f := range backs {
			f()
		}
	}
	v, ok := d.values[inetDumpKey{}]
	if !ok {
		return done, nil
	}
	if d.netLock != "" {
		d.keepLock = true
		backs = append(backs, d.lockReleased) // from then on it must outlive this process
	}
	for _, s := range v.(*inetDump).order {
		if s.tcp == nil || !s.dst.addr.IsValid() {
			continue
		}
		fd, err := s.f.Dup() // keeps the connection until Close
		if err != nil {
			return done, err
		}
		if d.Guard != nil {
			if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); err == nil && v != 0 {
				backs = append(backs, d.Guard(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, binary.NativeEndian.AppendUint32(nil, uint32(v))))
			}
			backs = append(backs, d.Guard(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, binary.NativeEndian.AppendUint32(nil, tcpRepairOffNoWP)))
		}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON)
		if errors.Is(err, unix.EPERM) || s.mptcp() {
			// Next best: a reset, which leaves nothing behind either.
			err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		if err != nil {
			return done, fmt.Errorf("%s: %w", s.f, err)
		}
	}
	return done, nil
}

const tcpRepairOffNoWP = ^uint32(0) // TCP_REPAIR_OFF_NO_WP, -1
