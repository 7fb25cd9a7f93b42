package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_unix "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-unix"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Opening unix sockets: all at once, at the first that is asked for. A connection
// one of whose ends has a name came about by a listener of that name, whether
// that lives or not: so it is made again through one, which gives the accepted
// end its name without binding it (a second bind to the name would fail). Without
// names it is a pair. A peer that was closed is made too, and closed in the end.
//
// Queues, and connections of datagram sockets, come later (Link): until then
// anyone may send to a socket.

// unixEnd is a socket being restored.
type unixEnd struct {
	id     uint32
	e      *sk_unix.UnixSkEntry
	x      *fm.SockExtra
	fd     int
	taken  bool     // Restore owns the descriptor
	gone   bool     // stands for a peer that was closed
	mate   *unixEnd // of a connection or pair
	target *unixEnd // of a datagram socket: what it is to be connected to
	paired bool     // made by socketpair
	named  bool     // has its name already
	at     *boundAt
	linked bool
}

func (s *unixEnd) name() []byte  { return s.e.GetName() }
func (s *unixEnd) dgram() bool   { return s.e.GetType() == unix.SOCK_DGRAM }
func (s *unixEnd) listens() bool { return s.e.GetState() == stateListen }
func (s *unixEnd) what() string {
	n := s.name()
	switch {
	case len(n) == 0:
		return fmt.Sprintf("unix socket %d", s.e.GetIno())
	case n[0] == 0:
		return fmt.Sprintf("unix socket @%s", n[1:])
	}
	return "unix socket " + cutNUL(n)
}

// unixRestore is all unix sockets of a restore.
type unixRestore struct {
	r       *Restore
	im      *sockImage
	all     []*unixEnd // with those that stand for closed peers
	byIno   map[uint32]*unixEnd
	byID    map[uint32]*unixEnd
	aimed   map[*unixEnd][]*unixEnd // datagram sockets by their target
	scratch *scratch
	linked  bool
}

type unixRestoreKey struct{}

// Late: the connections are made by the tasks.
func (unixSocket) Late(r *Restore, _ *fdinfo.FileEntry) bool { return r.Task != nil }

func (unixSocket) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	u, err := RestoreValue(r, unixRestoreKey{}, func() (*unixRestore, error) { return openUnix(r) })
	if err != nil {
		return -1, err
	}
	s := u.byID[e.GetId()]
	if s == nil {
		return -1, fault.Errorf(fault.ErrDamaged, "no unix_sk_entry")
	}
	s.taken = true
	return s.fd, nil
}

func openUnix(r *Restore) (_ *unixRestore, err error) {
	im, err := r.socks()
	if err != nil {
		return nil, err
	}
	u := &unixRestore{
		r: r, im: im, byIno: map[uint32]*unixEnd{}, byID: map[uint32]*unixEnd{},
		aimed: map[*unixEnd][]*unixEnd{}, scratch: newScratch(),
	}
	defer func() {
		if err != nil {
			u.drop()
		}
	}()
	for _, id := range r.IDs() {
		if e := r.Entry(id).GetUsk(); e != nil {
			s := &unixEnd{id: id, e: e, x: im.of(id), fd: -1}
			u.all = append(u.all, s)
			u.byIno[e.GetIno()], u.byID[id] = s, s
		}
	}
	r.onUndo(u.scratch.remove)
	steps := []func() error{u.match, u.connect, u.make, u.bindAll, u.listen}
	for _, f := range steps {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// drop closes what nobody has taken.
func (u *unixRestore) drop() {
	for _, s := range u.all {
		if s.fd >= 0 && !s.taken {
			unix.Close(s.fd)
			s.fd = -1
		}
	}
	u.scratch.remove()
}

// match finds who is connected to whom, and makes the ends that were closed.
func (u *unixRestore) match() error {
	for _, s := range append([]*unixEnd(nil), u.all...) {
		p := u.byIno[s.e.GetPeer()]
		switch {
		case s.listens():
		case s.x.GetPeerGone():
			e := &sk_unix.UnixSkEntry{Type: s.e.Type, State: s.e.State}
			if n := s.x.GetPeerName(); len(n) > 2 {
				e.Name = n[2:]
			}
			// Who closed it is unknown; its credentials are of no use to anyone.
			p = &unixEnd{e: e, x: &fm.SockExtra{}, fd: -1, gone: true}
			p.x.PeerPid, p.x.PeerUid, p.x.PeerGid = s.x.PeerPid, s.x.PeerUid, s.x.PeerGid
			u.all = append(u.all, p)
			s.tie(p)
		case s.e.GetPeer() == 0:
		case p == nil:
			return fault.Errorf(fault.ErrDamaged, "%s: its peer %d is missing", s.what(), s.e.GetPeer())
		case p.listens(): // not accepted yet
		default:
			s.tie(p)
		}
	}
	for _, s := range u.all {
		if s.target != nil {
			u.aimed[s.target] = append(u.aimed[s.target], s)
		}
	}
	return nil
}

// tie notes the peer of a socket. Two datagram sockets, one without a name, can
// have met by socketpair only.
func (s *unixEnd) tie(p *unixEnd) {
	if !s.dgram() {
		s.mate, p.mate = p, s
		return
	}
	if s.mate == p || (s.mate == nil && p.mate == nil && (len(p.name()) == 0 || (len(s.name()) == 0 && (p.gone || p.e.GetPeer() == s.e.GetIno())))) {
		s.mate, p.mate = p, s
		return
	}
	s.target = p
}

// connect makes all connections and pairs.
func (u *unixRestore) connect() error {
	for _, a := range u.all {
		b := a.mate
		if b == nil || a.fd >= 0 {
			continue
		}
		var err error
		if a.dgram() || len(a.name())+len(b.name()) == 0 {
			err = u.pair(a, b)
		} else {
			client, accepted := u.sides(a, b)
			err = u.through(client, accepted)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", a.what(), err)
		}
	}
	return nil
}

func (u *unixRestore) pair(a, b *unixEnd) error {
	p, err := u.r.makerOf(a.x).pair(int(a.e.GetType()))
	if err != nil {
		return err
	}
	a.fd, b.fd = p[0], p[1]
	a.paired, b.paired = true, true
	if !a.dgram() {
		return nil
	}
	for _, s := range []*unixEnd{a, b} {
		// One that has since been disconnected, or connected to another.
		if s.gone || (s.target == nil && (s.e.GetPeer() != 0 || s.x.GetPeerGone())) {
			continue
		}
		if err := sys.Connect(s.fd, make([]byte, 16)); err != nil { // AF_UNSPEC
			return fmt.Errorf("disconnecting: %w", err)
		}
		s.paired = false
	}
	return nil
}

// sides tells the end that was accepted: it has its listener's name.
func (u *unixRestore) sides(a, b *unixEnd) (client, accepted *unixEnd) {
	switch {
	case len(a.name()) == 0:
		return a, b
	case len(b.name()) == 0:
		return b, a
	}
	count := func(s *unixEnd) (n int) {
		for _, o := range u.all {
			if o != s && sameName(s.e, o.e, s.x.GetPath(), o.x.GetPath()) {
				n++
				if o.listens() {
					n += 1 << 20
				}
			}
		}
		return n
	}
	if count(a) > count(b) {
		return b, a
	}
	return a, b
}

// through connects a client and accepts it, by a listener that lives no longer
// than that.
func (u *unixRestore) through(client, accepted *unixEnd) (err error) {
	typ := int(client.e.GetType()) | unix.SOCK_CLOEXEC
	l, err := unix.Socket(unix.AF_UNIX, typ, 0)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	to, dir, err := u.bind(l, accepted.name(), "")
	if err != nil {
		return err
	}
	if err := u.r.makerOf(client.x).listen(l, 1); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if client.fd, err = unix.Socket(unix.AF_UNIX, typ, 0); err != nil {
		return err
	}
	if err := u.r.makerOf(accepted.x).connect(client.fd, to, dir.fdOr()); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	accepted.fd, _, err = unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	accepted.named = true
	if dir != nil {
		return unix.Unlink(dir.path())
	}
	return nil
}

// fdOr gives the directory in which a bound file is to be found; -1 for an
// abstract name.
func (b *boundAt) fdOr() int {
	if b == nil {
		return -1
	}
	return b.dir.fd
}

// bind binds a socket to a name and gives the address under which it is to be
// found at present.
func (u *unixRestore) bind(fd int, name []byte, beside string) (to []byte, at *boundAt, err error) {
	if isAbstract(name) {
		sa := sockaddrUnix(name)
		if err := sys.Bind(fd, sa); err != nil {
			if errors.Is(err, unix.EADDRINUSE) {
				return nil, nil, fault.Errorf(fault.ErrBusy, "the abstract name @%s is in use: %w", name[1:], err)
			}
			return nil, nil, fmt.Errorf("binding to @%s: %w", name[1:], err)
		}
		return sa, nil, nil
	}
	if at, err = u.scratch.bind(fd, name, beside); err != nil {
		return nil, nil, err
	}
	return at.sockaddr(), at, nil
}

// make makes the sockets that have no peer.
func (u *unixRestore) make() (err error) {
	for _, s := range u.all {
		if s.fd >= 0 {
			continue
		}
		if s.fd, err = unix.Socket(unix.AF_UNIX, int(s.e.GetType())|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
	}
	return nil
}

// bindAll gives the sockets their names.
func (u *unixRestore) bindAll() (err error) {
	for _, s := range u.all {
		if len(s.name()) == 0 || s.named {
			continue
		}
		beside := ""
		if p := s.x.GetPath(); p != "" && !s.e.GetDeleted() {
			beside = dirOf(p)
		}
		if _, s.at, err = u.bind(s.fd, s.name(), beside); err != nil {
			return err
		}
		s.named = true
	}
	return nil
}

// listen makes the listeners, and connects the clients that were not accepted.
func (u *unixRestore) listen() error {
	for _, s := range u.all {
		if !s.listens() {
			continue
		}
		pending := s.x.GetPending()
		m := u.r.makerOf(s.x)
		backlog := int(s.e.GetBacklog())
		if err := m.listen(s.fd, max(backlog, len(pending))); err != nil {
			return fmt.Errorf("%s: listen: %w", s.what(), err)
		}
		for i, c := range pending {
			if err := u.deliver(s, i, c); err != nil {
				return fmt.Errorf("%s: %w", s.what(), err)
			}
		}
		if len(pending) > backlog {
			if err := m.listen(s.fd, backlog); err != nil {
				return fmt.Errorf("%s: listen: %w", s.what(), err)
			}
		}
	}
	return nil
}

// reconnect connects a client to a listener in the tree. The end to be accepted
// shows who did: a task that has the client.
func (u *unixRestore) reconnect(client, l *unixEnd) error {
	m := maker{}
	if x := client.x; u.r.Task != nil && x.ByPid != nil {
		if t := u.r.Task(int(x.GetByPid())); t != nil {
			m = maker{t, int(x.GetByUid()), int(x.GetByGid())}
		}
	}
	to, dir := sockaddrUnix(l.name()), -1
	if l.at != nil {
		to, dir = l.at.sockaddr(), l.at.dir.fd
	}
	return m.connect(client.fd, to, dir)
}
