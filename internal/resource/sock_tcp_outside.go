package resource

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/netlock"
)

// Connections whose peer is not in the tree: a process that is not saved, on this
// host or another. The peer goes on, and must find the same connection again: its
// sequence numbers, what was sent and not acknowledged, the windows, the clock of
// its timestamps. How all of it is read says sock_tcp_kernel.go.
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
			conns = append(conns, netlock.Conn{Local: lockedEnd(s.src), Remote: lockedEnd(s.dst)})
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

// lockedEnd gives an end of a connection as a lock knows it.
func lockedEnd(p endpoint) netlock.End {
	a := p.same()
	return netlock.End{IP: a.Addr().AsSlice(), Port: a.Port()}
}

// lockNetwork locks connections. The lock is removed by Close, unless the tasks
// were ended (BeforeKill).
func (d *Dump) lockNetwork(conns []netlock.Conn) error {
	name := netlock.NewName()
	published, release := func() {}, func() {}
	if d.GuardLock != nil {
		published, release = d.GuardLock(name)
	}
	faultpoint.At("netlock.lock")
	if err := netlock.Lock(name, conns); err != nil {
		release()
		return err
	}
	faultpoint.At("netlock.locked")
	d.netLock, d.lockBelongs, d.lockReleased = name, published, sync.OnceFunc(release)
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
	r, done, err := d.examineTCP(s)
	if errors.Is(err, unix.EPERM) {
		d.Refusal(s.f, fmt.Sprintf("a TCP connection from %s to %s, outside the tree: only who has CAP_NET_ADMIN can save it", s.src, s.dst), "run fermata as root")
		return nil
	}
	if err != nil {
		return fmt.Errorf("its queues: %w", err)
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
	u, err := r.urgent(inSeq, len(in), outSeq, len(out))
	if err != nil {
		return err
	}
	d.addUrgent(s, u)
	mss, err := r.mss()
	if err != nil {
		return err
	}
	e.MssClamp = proto.Uint32(mss)
	if i.Options&infoTimestamps != 0 {
		fd, back, err := s.f.borrow()
		if err != nil {
			return err
		}
		t, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
		back()
		if err != nil {
			return fmt.Errorf("TCP_TIMESTAMP: %w", err)
		}
		e.Timestamp = proto.Uint32(uint32(t))
	}
	w, err := r.window()
	if err != nil {
		return err
	}
	if w != nil { // else, before Linux 4.8, the peer tells its window again
		for k, to := range []**uint32{&e.SndWl1, &e.SndWnd, &e.MaxWindow, &e.RcvWnd, &e.RcvWup} {
			*to = proto.Uint32(w[k])
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

// NetLocks gives the names of the locks on connections that an image depends on.
func NetLocks(im *image.Image) (names []string) {
	all, err := image.All[*fm.SockExtra](im, sockExtraPart)
	if err != nil {
		return nil
	}
	for _, x := range all {
		if name := x.GetLock(); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
