package resource

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// Opening internet sockets: all at once, at the first that is asked for, since
// connections need both ends and sockets share ports. Sockets are bound with the
// options they had; where that fails only because of connections of the same
// program, or of what the kernel keeps of ended ones, with SO_REUSEADDR for that
// moment.

// inetEnd is a socket being restored.
type inetEnd struct {
	id       uint32
	e        *sk_inet.InetSkEntry
	x        *fm.SockExtra
	fd       int
	taken    bool
	src, dst endpoint
	gone     bool     // stands for a peer that was closed
	mate     *inetEnd // of a TCP connection
	stream   *tcp_stream.TcpStreamEntry
	in, out  []byte
	queued   bool // in is in the receive queue
	closed   bool // it was connected, and shall be closed
}

func (s *inetEnd) family() int { return int(s.e.GetFamily()) }
func (s *inetEnd) proto() int  { return int(s.e.GetProto()) }
func (s *inetEnd) state() int  { return int(s.e.GetState()) }
func (s *inetEnd) tcp() bool {
	return s.e.GetType() == unix.SOCK_STREAM && (s.proto() == unix.IPPROTO_TCP || s.proto() == unix.IPPROTO_MPTCP)
}
func (s *inetEnd) is(bit uint32) bool { return s.x.GetData()&bit != 0 }
func (s *inetEnd) what() string {
	name := protocols[s.proto()]
	if s.e.GetType() == unix.SOCK_RAW {
		name = "raw"
	}
	if s.dst.addr.IsValid() && s.dst.port != 0 {
		return fmt.Sprintf("%s socket %s to %s", name, s.src, s.dst)
	}
	return fmt.Sprintf("%s socket %s", name, s.src)
}

func (s *inetEnd) fields() *optFields { return &optFields{opts: s.e.GetOpts(), inet: s.e} }

// inetRestore is all internet sockets of a restore.
type inetRestore struct {
	r      *Restore
	im     *sockImage
	all    []*inetEnd
	byIno  map[uint32]*inetEnd
	byID   map[uint32]*inetEnd
	repair bool
	linked bool
}

type inetRestoreKey struct{}

func (inetSocket) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	u, err := RestoreValue(r, inetRestoreKey{}, func() (*inetRestore, error) { return openInet(r) })
	if err != nil {
		return -1, err
	}
	s := u.byID[e.GetId()]
	if s == nil {
		return -1, fault.Errorf(fault.ErrDamaged, "no inet_sk_entry")
	}
	s.taken = true
	return s.fd, nil
}

// loadInet reads the sockets of an image.
func loadInet(r *Restore) (*inetRestore, error) {
	im, err := r.socks()
	if err != nil {
		return nil, err
	}
	u := &inetRestore{r: r, im: im, byIno: map[uint32]*inetEnd{}, byID: map[uint32]*inetEnd{}}
	for _, id := range r.IDs() {
		e := r.Entry(id).GetIsk()
		if e == nil {
			continue
		}
		s := &inetEnd{id: id, e: e, x: im.of(id), fd: -1}
		if err := s.load(r); err != nil {
			return nil, fmt.Errorf("file %d: %w", id, err)
		}
		u.all = append(u.all, s)
		u.byIno[e.GetIno()], u.byID[id] = s, s
	}
	return u, nil
}

func (s *inetEnd) load(r *Restore) error {
	var ok1, ok2 bool
	s.src, ok1 = endpointOf(s.family(), s.e.GetSrcAddr(), s.e.GetSrcPort())
	s.dst, ok2 = endpointOf(s.family(), s.e.GetDstAddr(), s.e.GetDstPort())
	if !ok1 || !ok2 {
		return fault.Errorf(fault.ErrDamaged, "an address of family %d: %v, %v", s.family(), s.e.GetSrcAddr(), s.e.GetDstAddr())
	}
	if n := s.e.GetIfname(); n != "" {
		i, err := net.InterfaceByName(n)
		if err != nil {
			return fault.Errorf(fault.ErrRefused, "its network interface %s is missing", n)
		}
		for _, p := range []*endpoint{&s.src, &s.dst} {
			if p.addr.IsLinkLocalUnicast() || p.addr.IsLinkLocalMulticast() {
				p.scope = uint32(i.Index)
			}
		}
	}
	recs, err := r.Image.Records(image.Of("tcp-stream", int(s.e.GetIno())))
	if err != nil || len(recs) == 0 {
		return err
	}
	t, ok := recs[0].Msg.(*tcp_stream.TcpStreamEntry)
	b := recs[0].Payload
	if !ok || uint64(t.GetInqLen())+uint64(t.GetOutqLen()) != uint64(len(b)) {
		return fault.Errorf(fault.ErrDamaged, "tcp_stream_entry with %d bytes", len(b))
	}
	s.stream, s.in, s.out = t, b[:t.GetInqLen()], b[t.GetInqLen():]
	return nil
}

func openInet(r *Restore) (_ *inetRestore, err error) {
	u, err := loadInet(r)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, s := range u.all {
				if s.fd >= 0 {
					unix.Close(s.fd)
				}
			}
		}
	}()
	if r.TCPClose {
		u.closeInstead()
	}
	if err := u.match(); err != nil {
		return nil, err
	}
	u.repair = mayRepair()
	// Without repair mode a connection needs a listener at its address, which
	// the program's own would not suffer beside it.
	steps := []func() error{u.connectAll, u.bindAll, u.connectOutside, u.pending}
	if u.repair {
		steps = []func() error{u.connectDisguised, u.bindAll, u.connectAll, u.connectOutside, u.pending}
	}
	for _, f := range steps {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return u, nil
}

var mayRepair = func() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_ON) == nil
}

// make makes the socket and sets what counts before it has an address.
func (u *inetRestore) make(s *inetEnd) (err error) {
	if s.fd, err = unix.Socket(s.family(), int(s.e.GetType())|unix.SOCK_CLOEXEC, s.proto()); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if s.gone {
		return nil
	}
	if err := restoreCommon(u.r, s.id, s.fd); err != nil {
		return err
	}
	restoreOpts(u.r, s.what(), s.fd, true, s.fields(), s.x)
	return nil
}

// bindAll makes the sockets that are not connected by TCP.
func (u *inetRestore) bindAll() error {
	for _, s := range u.all {
		if s.mate != nil || s.outside() && !s.closed {
			continue
		}
		if s.closed {
			if err := u.openClosed(s); err != nil {
				return fmt.Errorf("%s: %w", s.what(), err)
			}
			continue
		}
		if err := u.make(s); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
		if s.tcp() && s.is(tcpOver) {
			if err := u.refused(s); err != nil {
				return fmt.Errorf("%s: %w", s.what(), err)
			}
			continue
		}
		if s.src.set() {
			if err := u.bind(s); err != nil {
				return fmt.Errorf("%s: %w", s.what(), err)
			}
		}
		if s.state() == stateListen {
			if err := unix.Listen(s.fd, max(int(s.e.GetBacklog()), len(s.x.GetPending()))); err != nil {
				return fmt.Errorf("%s: listen: %w", s.what(), err)
			}
		}
	}
	return nil
}

// bind binds a socket to its own address.
func (u *inetRestore) bind(s *inetEnd) error {
	sa := s.src.sockaddr(s.family())
	if s.x.GetAddrForeign() {
		// It was bound when that was allowed, by this option or by the machine, or
		// the machine had the address.
		back, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_FREEBIND)
		if err == nil && back == 0 && unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1) == nil {
			defer func() { _ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 0) }()
		}
	}
	err := sys.Bind(s.fd, sa)
	if errors.Is(err, unix.EADDRINUSE) {
		if s.tcp() {
			reuse(s.fd)
		}
		u.share(s)
		err = sys.Bind(s.fd, sa)
	}
	if errors.Is(err, unix.EADDRINUSE) && s.tcp() && u.repair {
		for _, g := range portUsers(s.proto(), s.src.port) {
			if ended(g) {
				_ = sockdiag.DestroyTCP(g.Src, g.Dst, g.Ifindex)
			}
		}
		err = sys.Bind(s.fd, sa)
	}
	return s.addrError(err)
}

// share lets a socket be bound beside others of the program at the same port, which
// they were when each had SO_REUSEPORT, or of UDP SO_REUSEADDR. Those options may
// have been changed since; they are set to their last value at the end.
func (u *inetRestore) share(s *inetEnd) {
	set := func(fd, name int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, name, 1) }
	for _, x := range u.all {
		if x == s || x.fd < 0 || x.src.port != s.src.port || x.tcp() != s.tcp() || x.gone || x.mate != nil {
			continue
		}
		for _, y := range []*inetEnd{x, s} {
			if x.e.GetOpts().GetSoReuseport() || s.e.GetOpts().GetSoReuseport() {
				set(y.fd, unix.SO_REUSEPORT)
			}
			if !s.tcp() {
				set(y.fd, unix.SO_REUSEADDR)
			}
		}
	}
}

// reuse lets a socket be bound beside others that have SO_REUSEADDR too. The
// program's own value is set with the other options, at the end.
func reuse(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }

func (s *inetEnd) addrError(err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fault.Errorf(fault.ErrBusy, "%s is in use: %w", s.src, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fault.Errorf(fault.ErrRefused, "this machine does not have the address %s: %w", s.src, err)
	case err != nil:
		return fmt.Errorf("binding to %s: %w", s.src, err)
	}
	return nil
}

// pending connects those again that were not accepted, or on their way.
func (u *inetRestore) pending() error {
	for _, l := range u.all {
		pending := l.x.GetPending()
		for i, ino := range pending {
			if err := u.deliver(l, i, ino); err != nil {
				return err
			}
		}
		if n := int(l.e.GetBacklog()); len(pending) > n {
			if err := unix.Listen(l.fd, n); err != nil {
				return err
			}
		}
	}
	for _, s := range u.all {
		if !s.tcp() || s.state() != stateSynSent || s.closed {
			continue
		}
		if err := unix.SetNonblock(s.fd, true); err != nil {
			return err
		}
		err := sys.Connect(s.fd, s.dst.sockaddr(s.family()))
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("%s: connecting again: %w", s.what(), err)
		}
		if err := unix.SetNonblock(s.fd, false); err != nil {
			return err
		}
		u.r.Note("%s was being connected: it is being connected anew", s.what())
	}
	return nil
}

// Link gives all internet sockets their last state, the first time it is called.
func (inetSocket) Link(r *Restore, e *fdinfo.FileEntry) error {
	u, err := RestoreValue(r, inetRestoreKey{}, func() (*inetRestore, error) { return openInet(r) })
	if err != nil || u.linked {
		return err
	}
	u.linked = true
	defer func() {
		for _, s := range u.all {
			if s.gone && s.fd >= 0 {
				unix.Close(s.fd)
				s.fd = -1
			}
		}
	}()
	if err := u.fillTCP(); err != nil {
		return err
	}
	if err := u.fillPackets(); err != nil {
		return err
	}
	for _, s := range u.all {
		if s.gone {
			continue
		}
		if s.x.GetLost() {
			u.r.Note("%s: packets that had arrived and were not read are lost", s.what())
		}
		restoreOpts(r, s.what(), s.fd, false, s.fields(), s.x)
		if err := setStatus(s.fd, s.e.GetFlags()); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
	}
	return nil
}
