package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// A listener's queue holds connections that nobody has accepted: sockets without
// descriptors (struct inet_connection_sock, icsk_accept_queue). In which order,
// what has come over them, and those whose client has closed or broken them
// already, are read from the kernel's memory. At restore the clients, or
// stand-ins for those that are gone, connect and send it again.

// unaccepted is a connection in a listener's queue.
type unaccepted struct {
	src, dst endpoint // the listener's end, the client's
	state    int
	in       []byte
	next     uint32 // the sequence number behind in
}

// acceptQueue reads a listener's queue.
func acceptQueue(k *kmem.Reader, fd int, disguised bool) (all []unaccepted, err error) {
	s := k.Socket(fd)
	if disguised {
		s = s.As("mptcp_sock").Ptr("first", "sock")
	}
	l := s.As("inet_connection_sock")
	for q := l.Ptr("icsk_accept_queue.rskq_accept_head", "request_sock"); !q.Nil(); q = q.Ptr("dl_next", "request_sock") {
		c, err := readUnaccepted(k, q.Ptr("sk", "tcp_sock"))
		if err := errors.Join(err, k.Err()); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, k.Err()
}

func readUnaccepted(k *kmem.Reader, s kmem.Object) (c unaccepted, err error) {
	sk := s.As("sock_common")
	c.state = int(sk.Uint("skc_state"))
	c.dst.port = binary.BigEndian.Uint16(sk.Bytes("skc_dport", 2))
	if sk.Uint("skc_family") == unix.AF_INET6 {
		c.src.addr = endpointAddr(sk.Bytes("skc_v6_rcv_saddr", 16))
		c.dst.addr = endpointAddr(sk.Bytes("skc_v6_daddr", 16))
	} else {
		c.src.addr, c.dst.addr = endpointAddr(sk.Bytes("skc_rcv_saddr", 4)), endpointAddr(sk.Bytes("skc_daddr", 4))
	}
	if s.Uint("urg_data") != 0 {
		return c, errors.New("urgent data (MSG_OOB) is in it")
	}
	if s.Has("is_mptcp") && s.Uint("is_mptcp") != 0 {
		// What has come is moved on to the connection's own queue.
		conn := s.As("inet_connection_sock").Ptr("icsk_ulp_data", "mptcp_subflow_context").Ptr("conn", "sock")
		for _, b := range conn.In("sk_receive_queue", "sk_buff_head").Buffers() {
			data, skip := b.Data(), int(b.In("cb", "mptcp_skb_cb").Uint("offset"))
			if skip > len(data) {
				return c, kmem.ErrChanged
			}
			c.in = append(c.in, data[skip:]...)
		}
		if state := int(conn.As("sock_common").Uint("skc_state")); gotFIN(state) {
			c.state = state
		}
	}
	at := uint32(s.Uint("copied_seq"))
	for _, b := range s.As("sock").In("sk_receive_queue", "sk_buff_head").Buffers() {
		data := b.Data()
		seq := uint32(b.In("cb", "tcp_skb_cb").Uint("seq"))
		skip := int(int32(at - seq))
		if skip < 0 {
			return c, kmem.ErrChanged
		}
		if skip < len(data) {
			c.in = append(c.in, data[skip:]...)
			at = seq + uint32(len(data))
		}
	}
	c.next = at
	return c, k.Err()
}

// backlog saves what waits in a listener's queue. clients are those in the tree.
func (d *Dump) backlog(l *inetSock, clients []*inetSock) error {
	const remedy = "let the program accept them first"
	count := int(l.tcp.info.Unacked)
	plain := count <= len(clients)
	for _, c := range clients {
		plain = plain && !c.tcp.sentUnread
	}
	x := d.sockExtra(l.f)
	for _, c := range clients {
		x.Pending = append(x.Pending, c.entry.GetIno())
	}
	if plain && len(clients) < 2 {
		return nil
	}
	if d.SkipInFlight && count > len(clients) {
		x.Pending = nil
		return nil
	}
	// What moves on meanwhile is then in both, and counted once.
	sent := map[*inetSock]sentData{}
	for _, c := range clients {
		b, end, err := d.unread(c)
		if err != nil {
			return err
		}
		sent[c] = sentData{b, end}
	}
	queue, err := d.readBacklog(l)
	switch {
	case err != nil && plain:
		return nil // only their order is not known
	case err != nil && count > len(clients):
		d.NotNow(l.f, fmt.Sprintf("%d connections from outside the tree, or whose client has closed them, wait to be accepted (%v)", count-len(clients), err), remedy)
		return nil
	case err != nil:
		d.NotNow(l.f, fmt.Sprintf("data has been sent over a connection that nobody has accepted yet (%v)", err), remedy)
		return nil
	}
	x.Pending = nil
	for i, q := range queue {
		var client *inetSock
		for _, c := range clients {
			if c.src.same() == q.dst.same() && c.dst.same() == q.src.same() {
				client = c
			}
		}
		a := &fm.Arrival{Index: proto.Uint32(uint32(i))}
		if client == nil {
			x.Pending = append(x.Pending, 0)
			if why := d.leftBehind(&q); why != "" {
				d.NotNow(l.f, fmt.Sprintf("a connection from %s, %s, waits to be accepted", q.dst, why), remedy)
				return nil
			}
			family := l.sock.domain
			a.Name, a.To, a.Broken = q.dst.sockaddr(family), q.src.sockaddr(family), proto.Bool(q.state == stateClose)
		} else {
			x.Pending = append(x.Pending, client.entry.GetIno())
			more := sent[client]
			left := int(int32(more.end - q.next))
			if left < 0 || left > len(more.b) {
				if len(more.b) > 0 {
					return fmt.Errorf("%d bytes are on their way, %d in the send queue", left, len(more.b))
				}
				left = 0
			}
			q.in = append(q.in, more.b[len(more.b)-left:]...)
		}
		if len(q.in) > 0 {
			a.Data = [][]byte{q.in}
		}
		if client == nil || len(q.in) > 0 {
			x.Arrived = append(x.Arrived, a)
		}
	}
	d.notQueued(x, clients, sent)
	return nil
}

// sentData is what a client has sent and was not told that it arrived, and the
// sequence number behind it.
type sentData struct {
	b   []byte
	end uint32
}

// notQueued adds the clients that believe to be connected and are not in the
// listener's queue: it waits for their first data (TCP_DEFER_ACCEPT), or it was
// full when the handshake ended. They connect again behind the others, and send
// what they had sent.
func (d *Dump) notQueued(x *fm.SockExtra, clients []*inetSock, sent map[*inetSock]sentData) {
	for _, c := range clients {
		if slices.Contains(x.Pending, c.entry.GetIno()) {
			continue
		}
		if b := sent[c].b; len(b) > 0 {
			x.Arrived = append(x.Arrived, &fm.Arrival{Index: proto.Uint32(uint32(len(x.Pending))), Data: [][]byte{b}})
		}
		x.Pending = append(x.Pending, c.entry.GetIno())
	}
}

func (d *Dump) readBacklog(l *inetSock) ([]unaccepted, error) {
	k, err := d.Kernel()
	if err != nil {
		return nil, err
	}
	fd, done, err := l.f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	all, err := acceptQueue(k, fd, l.mptcp())
	for i := range all {
		all[i].src.port = l.src.port // a connection that is broken has forgotten its own
	}
	return all, err
}

// leftBehind says why the client of a connection is not one that is closed.
func (d *Dump) leftBehind(q *unaccepted) string {
	if !isLocal(d, q.dst.addr) {
		return "outside this machine"
	}
	g, err := sockdiag.GetTCP(q.dst.same(), q.src.same(), q.dst.scope)
	switch {
	case err == nil && g.State != stateListen && g.Dst.Port() == q.src.port && g.Ino != 0:
		return "of " + holderOf(uint64(g.Ino)) + ", outside the tree"
	case q.state != stateClose && !gotFIN(q.state):
		return "which is being closed"
	}
	return ""
}

// unread gives what a client has sent and was not told that it arrived.
func (d *Dump) unread(c *inetSock) ([]byte, uint32, error) {
	if c.unacked() == 0 {
		return nil, 0, nil
	}
	r, done, err := d.examineTCP(c)
	if errors.Is(err, unix.EPERM) {
		d.Refusal(c.f, "it has sent what has not arrived: only who has CAP_NET_ADMIN can save that", "let the program accept the connection and read, or run fermata as root")
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("its queues: %w", err)
	}
	defer done()
	b, _, end, err := r.unacknowledged()
	return b, end, errors.Join(err, r.leave())
}

// arrival gives what has come over a connection of a listener's queue.
func (s *inetEnd) arrival(index int) *fm.Arrival {
	for _, a := range s.x.GetArrived() {
		if int(a.GetIndex()) == index {
			return a
		}
	}
	return nil
}

// deliver connects one client of a listener's queue again, and has it send what
// it had sent.
func (u *inetRestore) deliver(l *inetEnd, index int, ino uint32) error {
	a := l.arrival(index)
	c := u.byIno[ino]
	if ino == 0 && a != nil {
		var err error
		if c, err = u.standIn(l, a); err != nil {
			return err
		}
		defer unix.Close(c.fd)
	}
	if c == nil {
		return fault.Errorf(fault.ErrDamaged, "%s: the client %d is missing", l.what(), ino)
	}
	if err := sys.Connect(c.fd, c.dst.sockaddr(c.family())); err != nil {
		return fmt.Errorf("%s: connecting again: %w", c.what(), err)
	}
	for _, b := range a.GetData() {
		if err := c.pour(b); err != nil {
			return fmt.Errorf("%s: %w", c.what(), err)
		}
	}
	if c.gone {
		if err := c.drained(); err != nil {
			return fmt.Errorf("%s: %w", c.what(), err)
		}
		if a.GetBroken() {
			return unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		return nil
	}
	if sentFIN(c.state()) {
		if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil {
			return fmt.Errorf("%s: shutdown: %w", c.what(), err)
		}
	}
	if c.is(tcpShutRD) {
		if err := unix.Shutdown(c.fd, unix.SHUT_RD); err != nil {
			return fmt.Errorf("%s: shutdown for reading: %w", c.what(), err)
		}
	}
	return nil
}

// standIn makes a socket for a client that was closed.
func (u *inetRestore) standIn(l *inetEnd, a *fm.Arrival) (*inetEnd, error) {
	c := &inetEnd{e: l.e, x: &fm.SockExtra{}, fd: -1, gone: true, mate: &inetEnd{}}
	var err error
	if c.src, err = parseEndpoint(a.GetName()); err != nil {
		return nil, fault.Errorf(fault.ErrDamaged, "%s: the client: %w", l.what(), err)
	}
	if c.dst, err = parseEndpoint(a.GetTo()); err != nil {
		return nil, fault.Errorf(fault.ErrDamaged, "%s: the client: %w", l.what(), err)
	}
	if err := u.make(c); err != nil {
		return nil, err
	}
	reuse(c.fd)
	if err := u.bindOr(c, c.fd, true); err != nil {
		unix.Close(c.fd)
		return nil, err
	}
	return c, nil
}

// pour sends bytes without waiting for a reader.
func (s *inetEnd) pour(b []byte) error {
	wide(s.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
	for end, all := time.Now().Add(5*time.Second), len(b); len(b) > 0; {
		n, err := unix.SendmsgN(s.fd, b, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) && time.Now().Before(end) {
			time.Sleep(time.Millisecond) // it moves on into the other's queue
			continue
		}
		if err != nil {
			return fmt.Errorf("sending %d bytes again: %w", all, err)
		}
		b = b[n:]
	}
	return nil
}

// drained waits until the other end has received everything.
func (s *inetEnd) drained() error {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		n, err := unix.IoctlGetInt(s.fd, unix.SIOCOUTQ)
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d bytes do not arrive", n)
		}
	}
}
