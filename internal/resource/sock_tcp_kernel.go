package resource

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// What the kernel keeps of a TCP connection and tells only in repair mode: the
// sequence numbers, the send queue, the windows, the segment size that the
// handshake agreed on (struct tcp_sock, include/linux/tcp.h; struct tcp_skb_cb,
// include/net/tcp.h). A connection in repair mode answers its program with
// errors, and a program is not to see that, should this process die meanwhile.
// So all of it is read from the kernel's memory (package kmem), and the mode is
// used only where that is not allowed (sock_tcp_repair.go).
//
// The program stands still, its peer may not: it sends, and acknowledges. What
// changes meanwhile shows in the numbers that stand at either end of a queue, and
// is read again.

// tcpTries is how often a queue is read until it has not changed meanwhile.
const tcpTries = 100

// connReader tells what is on its way in a connection.
type connReader interface {
	// unacknowledged gives what was sent and not acknowledged, how much at its end
	// was not even sent, and the sequence number behind it, the end of the stream
	// not counted.
	unacknowledged() (b []byte, unsent int, end uint32, err error)
	// received gives the receive queue and the sequence number behind it, the end
	// of the stream not counted.
	received() (b []byte, end uint32, err error)
	// window gives the members of struct tcp_repair_window (include/uapi/linux/tcp.h),
	// nil where the kernel does not tell.
	window() ([]uint32, error)
	// urgent tells where urgent bytes lie in queues that were read, by the numbers
	// behind them and their lengths.
	urgent(inEnd uint32, in int, outEnd uint32, out int) (urgency, error)
	// mss gives the segment size that the handshake agreed on.
	mss() (uint32, error)
	leave() error
}

// examineTCP gives a reader of a connection; done must be called after leave. The
// error is EPERM where this process may neither read the kernel's memory nor
// repair.
func (d *Dump) examineTCP(s *inetSock) (r connReader, done func(), err error) {
	v, done, err := d.view(s)
	if errors.Is(err, kmem.ErrUnavailable) {
		return d.enterRepair(s)
	}
	return v, done, err
}

// view gives a reader of a connection by way of the kernel's memory. Errors are
// kmem.ErrUnavailable where that is not allowed.
func (d *Dump) view(s *inetSock) (*viewed, func(), error) {
	k, err := d.Kernel()
	if err != nil {
		return nil, nil, err
	}
	if s.mptcp() {
		return nil, nil, kmem.ErrUnavailable // it has no queues of this form
	}
	fd, done, err := s.f.borrow()
	if err != nil {
		return nil, nil, err
	}
	v := &viewed{s: s, fd: fd, k: k, sock: k.Socket(fd).As("tcp_sock")}
	v.look()
	if err := k.Err(); err != nil {
		done()
		return nil, nil, err
	}
	return v, done, nil
}

// urgency is where urgent bytes lie (MSG_OOB, RFC 6093): in what was received and
// in what was sent, -1 for nowhere; read: the program has read the one received.
type urgency struct {
	in, out int
	read    bool
}

// viewed is a connection that is read from the kernel's memory.
type viewed struct {
	s    *inetSock
	fd   int
	k    *kmem.Reader
	sock kmem.Object // struct tcp_sock
}

// tcpNumbers are a connection's numbers at one moment.
type tcpNumbers struct {
	rcvNxt, copied           uint32
	sndUna, sndNxt, writeSeq uint32
	wl1, wnd, maxWnd         uint32
	rcvWnd, rcvWup           uint32
	mss                      uint32
	urgData, urgSeq, sndUp   uint32
}

// What the kernel notes of an urgent byte received (TCP_URG_VALID, TCP_URG_READ;
// include/net/tcp.h).
const (
	urgValid = 0x100
	urgRead  = 0x400
)

func (v *viewed) look() (n tcpNumbers) {
	faultpoint.At("tcp.look")
	o := v.sock.Read()
	for _, m := range []struct {
		to   *uint32
		path string
	}{
		{&n.rcvNxt, "rcv_nxt"}, {&n.copied, "copied_seq"}, {&n.sndUna, "snd_una"}, {&n.sndNxt, "snd_nxt"}, {&n.writeSeq, "write_seq"},
		{&n.wl1, "snd_wl1"}, {&n.wnd, "snd_wnd"}, {&n.maxWnd, "max_window"}, {&n.rcvWnd, "rcv_wnd"}, {&n.rcvWup, "rcv_wup"},
		{&n.mss, "rx_opt.mss_clamp"}, {&n.urgData, "urg_data"}, {&n.urgSeq, "urg_seq"}, {&n.sndUp, "snd_up"},
	} {
		*m.to = uint32(o.Uint(m.path))
	}
	return n
}

func (v *viewed) leave() error { return nil }

func (v *viewed) mss() (uint32, error) {
	n := v.look()
	return n.mss, v.k.Err()
}

func (v *viewed) window() ([]uint32, error) {
	n := v.look()
	return []uint32{n.wl1, n.wnd, n.maxWnd, n.rcvWnd, n.rcvWup}, v.k.Err()
}

func (v *viewed) urgent(inEnd uint32, in int, outEnd uint32, out int) (u urgency, err error) {
	n := v.look()
	within := func(seq, end uint32, size int) int {
		if at := size - int(int32(end-seq)); at >= 0 && at < size {
			return at
		}
		return -1
	}
	u.in, u.out = -1, -1
	if n.urgData&(urgValid|urgRead) != 0 {
		u.in, u.read = within(n.urgSeq, inEnd, in), n.urgData&urgValid == 0
	}
	if int32(n.sndUp-n.sndUna) > 0 {
		u.out = within(n.sndUp-1, outEnd, out)
	}
	return u, v.k.Err()
}

// segments reads a queue's bytes from a sequence number on, and gives the number
// behind them, the end of the stream not counted. Segments lie one behind the
// other; the first may have been taken in part.
func segments(buffers []kmem.Object, from uint32) (b []byte, end uint32, err error) {
	end = from
	for _, x := range buffers {
		cb := x.In("cb", "tcp_skb_cb")
		seq := uint32(cb.Uint("seq"))
		data := x.Data()
		skip := int(int32(end - seq))
		if skip < 0 {
			return nil, 0, kmem.ErrChanged
		}
		if skip < len(data) {
			b = append(b, data[skip:]...)
			end = seq + uint32(len(data))
		}
	}
	return b, end, nil
}

func (v *viewed) received() ([]byte, uint32, error) {
	off, err := unix.GetsockoptInt(v.fd, unix.SOL_SOCKET, unix.SO_PEEK_OFF)
	// Else a peek begins where the program wants it to, and ends before an urgent byte.
	plain := (err != nil || off < 0) && v.look().urgData == 0
	for range tcpTries {
		before := v.look()
		end := before.rcvNxt
		if gotFIN(v.s.state()) {
			end--
		}
		var b []byte
		at, same, err := end, true, error(nil)
		if plain {
			b, err = peekStream(v.fd, 0)
		} else {
			all := v.receiveQueue()
			b, at, err = segments(all, before.copied)
			same = slices.Equal(outline(all), outline(v.receiveQueue()))
		}
		after := v.look()
		if err = errors.Join(err, v.k.Err()); err != nil && !errors.Is(err, kmem.ErrChanged) {
			return nil, 0, err
		}
		if err == nil && same && after.rcvNxt == before.rcvNxt && at == end {
			return b, end, nil
		}
	}
	return nil, 0, errors.New("what is received does not come to rest")
}

// outline tells how a queue is divided into segments. Those may be split or joined
// at any time, which shows in no number of the connection, and in this.
func outline(buffers []kmem.Object) (all []uint64) {
	for _, b := range buffers {
		cb := b.In("cb", "tcp_skb_cb")
		all = append(all, b.Addr, b.Uint("len"), cb.Uint("seq"))
	}
	return all
}

// read reads all about a buffer but its data.
func read(buffers []kmem.Object) []kmem.Object {
	for i, b := range buffers {
		buffers[i] = b.Read()
	}
	return buffers
}

func (v *viewed) sendQueue() []kmem.Object {
	sk := v.sock.As("sock")
	all := sk.In("tcp_rtx_queue", "rb_root").Tree("sk_buff", "rbnode")
	return read(append(all, sk.In("sk_write_queue", "sk_buff_head").Buffers()...))
}

func (v *viewed) receiveQueue() []kmem.Object {
	return read(v.sock.As("sock").In("sk_receive_queue", "sk_buff_head").Buffers())
}

func (v *viewed) unacknowledged() (b []byte, unsent int, end uint32, err error) {
	for range tcpTries {
		before := v.look()
		all := v.sendQueue()
		b, end, err := segments(all, before.sndUna)
		same := slices.Equal(outline(all), outline(v.sendQueue()))
		after := v.look()
		if err = errors.Join(err, v.k.Err()); err != nil && !errors.Is(err, kmem.ErrChanged) {
			return nil, 0, 0, err
		}
		want := before.writeSeq
		if sentFIN(v.s.state()) {
			want--
		}
		if err == nil && same && before.sndUna == after.sndUna && before.sndNxt == after.sndNxt && (end == want || len(b) == 0) {
			return b, min(len(b), max(0, int(int32(want-before.sndNxt)))), want, nil
		}
	}
	return nil, 0, 0, errors.New("what is sent does not come to rest")
}
