package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/netlock"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Connections whose peer is not in the tree: a process that is not saved, on this
// host or another. The peer goes on, and must find the same connection again: its
// sequence numbers, what was sent and not acknowledged, the windows, the clock of
// its timestamps. All of it is read in repair mode.
//
// When the program is to end, packets are kept from the connection before it is
// read (internal/netlock), until the restore has made it again: the host would
// answer the peer with a reset. What the peer sends meanwhile it sends again.

const (
	siocOutqNsd     = 0x894b // SIOCOUTQNSD, include/uapi/linux/sockios.h, Linux 3.0
	repairWindowLen = 20     // sizeof(struct tcp_repair_window), include/uapi/linux/tcp.h, Linux 4.8
)

// completeOutside saves the connections to the outside, once all are known.
func (d *Dump) completeOutside(u *inetDump) error {
	var conns []netlock.Conn
	for _, s := range u.order {
		if s.tcp != nil && s.tcp.outside && s.f.Entry != nil {
			conns = append(conns, netlock.Conn{Local: s.src.same(), Remote: s.dst.same()})
		}
	}
	if len(conns) == 0 {
		return nil
	}
	if d.LockNetwork && d.Refuse.Err() == nil {
		if err := d.lockNetwork(conns); err != nil {
			return err
		}
	}
	for _, s := range u.order {
		if s.tcp == nil || !s.tcp.outside || s.f.Entry == nil {
			continue
		}
		if err := d.saveOutside(s); err != nil {
			return fmt.Errorf("pid %d: %s (%s to %s): %w", s.f.PID, s.f, s.src, s.dst, err)
		}
	}
	return nil
}

// lockNetwork locks connections. The lock is removed by Close, unless the tasks
// were ended (BeforeKill).
func (d *Dump) lockNetwork(conns []netlock.Conn) error {
	name := netlock.NewName()
	release := func() {}
	if d.GuardLock != nil {
		release = d.GuardLock(name)
	}
	faultpoint.At("netlock.lock")
	if err := netlock.Lock(name, conns); err != nil {
		release()
		return err
	}
	faultpoint.At("netlock.locked")
	d.netLock, d.lockReleased = name, sync.OnceFunc(release)
	d.atClose = append(d.atClose, func() {
		if !d.keepLock {
			_ = netlock.Unlock(name)
		}
		d.lockReleased()
	})
	return nil
}

// saveOutside reads a connection and puts it into the image.
func (d *Dump) saveOutside(s *inetSock) (err error) {
	r, done, err := d.enterRepair(s)
	if errors.Is(err, unix.EPERM) {
		d.Refusal(s.f, fmt.Sprintf("a TCP connection from %s to %s, outside the tree: only who has CAP_NET_ADMIN can save it", s.src, s.dst), "run fermata as root")
		return nil
	}
	if err != nil {
		return fmt.Errorf("repair mode: %w", err)
	}
	defer done()
	defer func() { err = errors.Join(err, r.leave()) }()
	in, inSeq, err := r.received()
	if err != nil {
		return err
	}
	out, unsent, outSeq, err := r.unacknowledged()
	if err != nil {
		return err
	}
	i := s.tcp.info
	e := &tcp_stream.TcpStreamEntry{
		InqLen: proto.Uint32(uint32(len(in))), InqSeq: proto.Uint32(inSeq),
		OutqLen: proto.Uint32(uint32(len(out))), OutqSeq: proto.Uint32(outSeq), UnsqLen: proto.Uint32(uint32(unsent)),
		OptMask: proto.Uint32(uint32(i.Options)), SndWscale: proto.Uint32(uint32(s.tcp.wscale & 0xf)),
		RcvWscale: proto.Uint32(uint32(s.tcp.wscale >> 4)),
	}
	mss, err := unix.GetsockoptInt(r.fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG) // in repair mode: what the handshake agreed on
	if err != nil {
		return fmt.Errorf("TCP_MAXSEG: %w", err)
	}
	e.MssClamp = proto.Uint32(uint32(mss))
	if i.Options&infoTimestamps != 0 {
		t, err := unix.GetsockoptInt(r.fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
		if err != nil {
			return fmt.Errorf("TCP_TIMESTAMP: %w", err)
		}
		e.Timestamp = proto.Uint32(uint32(t))
	}
	var w [repairWindowLen]byte
	n, err := sys.Getsockopt(r.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, w[:])
	switch {
	case err == unix.ENOPROTOOPT: // Linux before 4.8: the peer tells its window again
	case err != nil || n != len(w):
		return fmt.Errorf("TCP_REPAIR_WINDOW (%d bytes): %w", n, err)
	default:
		for k, to := range []**uint32{&e.SndWl1, &e.SndWnd, &e.MaxWindow, &e.RcvWnd, &e.RcvWup} {
			*to = proto.Uint32(binary.NativeEndian.Uint32(w[4*k:]))
		}
	}
	x := d.sockExtra(s.f)
	x.Outside = proto.Bool(true)
	if d.netLock != "" {
		x.Lock = proto.String(d.netLock)
	}
	d.Image.Add(image.Of("tcp-stream", int(s.entry.GetIno())), e, append(in, out...)...)
	return nil
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
