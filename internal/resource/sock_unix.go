package resource

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_opts "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-opts"
	sk_unix "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-unix"

	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// Unix sockets (unix(7), net/unix/af_unix.c). Of each the kernel keeps a type
// and state, a name and the file it was bound to, the peer, what was shut down,
// and a queue of messages with descriptors and credentials. Names, state and
// options are read from a duplicate; peer, shutdown, backlog and the clients of
// a listener that nobody accepted yet come from sock_diag.
//
// The schema's unix_sk_entry.peer is the inode of the peer, or of the listener
// whose queue the connection is in. Beside it, in sock_extra: SO_PEERCRED, the
// order of a listener's queue, where the bound file lies, whether the peer is
// closed, the name of a peer outside.
//
// A peer outside the tree is refused, but for datagram sockets that are connected
// to a name: these are connected again, as after a restart of that server.
type unixSocket struct{}

func init() { Register(unixSocket{}) }

func (unixSocket) Name() string            { return "unix socket" }
func (unixSocket) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_UNIXSK} }
func (unixSocket) Match(f *File) bool      { return matchFamily(f, unix.AF_UNIX) }

// Priority makes its Complete come first: queues hold files of any kind.
func (unixSocket) Priority() int { return -100 }

// TCP's numbers for the states of a socket (include/net/tcp_states.h).
const (
	stateEstablished = 1
	stateSynSent     = 2
	stateSynRecv     = 3
	stateFinWait1    = 4
	stateFinWait2    = 5
	stateTimeWait    = 6
	stateClose       = 7
	stateCloseWait   = 8
	stateLastAck     = 9
	stateListen      = 10
	stateClosing     = 11
)

// unixDump is what is kept of the unix sockets during a dump.
type unixDump struct {
	diag  map[uint32]*sockdiag.Unix
	list  []sockdiag.Unix
	socks map[uint32]*unixSock // those in the tree, by inode
	order []*unixSock
}

// unixSock is a socket in the tree.
type unixSock struct {
	f        *File
	diag     *sockdiag.Unix
	entry    *sk_unix.UnixSkEntry
	peerName []byte // sockaddr
}

type unixDumpKey struct{}

func (d *Dump) unixSocks() (*unixDump, error) {
	return Value(d, unixDumpKey{}, func() (*unixDump, error) {
		list, err := sockdiag.ListUnix()
		if err != nil {
			return nil, err
		}
		u := &unixDump{diag: map[uint32]*sockdiag.Unix{}, list: list, socks: map[uint32]*unixSock{}}
		for i := range list {
			u.diag[list[i].Ino] = &list[i]
		}
		return u, nil
	})
}

func (unixSocket) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	s := sockOf(f)
	fd, done, err := f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	if foreign, err := foreignNet(d, f, fd); foreign || err != nil {
		return nil, err
	}
	u, err := d.unixSocks()
	if err != nil {
		return nil, err
	}
	g := u.diag[uint32(f.Stat.Ino)]
	if g == nil {
		return nil, errors.New("the kernel's socket monitor does not show it")
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	ue := &sk_unix.UnixSkEntry{
		Id: proto.Uint32(f.ID), Ino: proto.Uint32(g.Ino), Type: proto.Uint32(uint32(s.typ)), State: proto.Uint32(uint32(g.State)),
		Flags: proto.Uint32(f.Flags()), Uflags: proto.Uint32(0), Backlog: proto.Uint32(0), Peer: proto.Uint32(g.Peer),
		Fown: o, Opts: &sk_opts.SkOptsEntry{}, Name: []byte{},
	}
	if g.Shutdown != 0 {
		ue.Shutdown = sk_opts.SkShutdown(g.Shutdown).Enum() // the kernel's bits
	}
	us := &unixSock{f: f, diag: g, entry: ue}
	u.socks[g.Ino] = us
	u.order = append(u.order, us)
	sockCommon(d, f)
	if ok, err := us.name(d, fd); !ok || err != nil {
		return nil, err
	}
	if err := collectOpts(d, f, fd, s, sockState{}, &optFields{opts: ue.Opts}); err != nil {
		return nil, err
	}
	if err := us.peerCred(d, fd); err != nil {
		return nil, err
	}
	if g.State == stateListen {
		ue.Backlog = proto.Uint32(g.WQueue)
	} else {
		if us.peerName, err = sys.Peername(fd); err != nil && err != unix.ENOTCONN {
			return nil, fmt.Errorf("name of the peer: %w", err)
		}
		if err := us.queue(d, fd); err != nil {
			return nil, err
		}
	}
	e := entryOf(fdinfo.FdTypes_UNIXSK)
	e.Usk = ue
	return e, nil
}

// peerCred saves who the peer is (SO_PEERCRED).
func (s *unixSock) peerCred(d *Dump, fd int) error {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("credentials of the peer: %w", err)
	}
	if c.Pid == 0 && c.Uid == ^uint32(0) {
		return nil // never connected
	}
	x := d.sockExtra(s.f)
	x.PeerPid, x.PeerUid, x.PeerGid = proto.Uint32(uint32(c.Pid)), proto.Uint32(c.Uid), proto.Uint32(c.Gid)
	return nil
}

const siocUnixFile = unix.SIOCPROTOPRIVATE // SIOCUNIXFILE, include/uapi/linux/un.h, Linux 4.15

// name saves the bound name and the file that goes with it.
func (s *unixSock) name(d *Dump, fd int) (ok bool, err error) {
	sa, err := sys.Sockname(fd)
	if err != nil {
		return false, fmt.Errorf("name: %w", err)
	}
	if len(sa) <= 2 {
		return true, nil
	}
	s.entry.Name = sa[2:]
	if sa[2] == 0 {
		return true, nil // abstract
	}
	name := cutNUL(sa[2:])
	file, st, err := s.boundFile(fd, name)
	if err != nil {
		return false, err
	}
	s.entry.FilePerms = &sk_unix.FilePermsEntry{
		Mode: proto.Uint32(st.Mode & 0o7777), Uid: proto.Uint32(st.Uid), Gid: proto.Uint32(st.Gid),
	}
	if file == "" {
		s.entry.Deleted = proto.Bool(true)
		return true, nil
	}
	var at unix.Stat_t
	if err := unix.Lstat(file, &at); err != nil || at.Dev != st.Dev || at.Ino != st.Ino {
		d.Refusal(s.f, fmt.Sprintf("its file %s is not to be seen under that name from here", file), "unmount what lies over it, or checkpoint inside its mount namespace")
		return false, nil
	}
	if !filepath.IsAbs(name) {
		dir := strings.TrimSuffix(file, name)
		if dir == file {
			dir = filepath.Dir(file)
		}
		s.entry.NameDir = proto.String(filepath.Clean(dir))
	}
	x := d.sockExtra(s.f)
	x.Path = proto.String(file)
	return true, nil
}

// boundFile gives the path of the bound file as it is now, "" when it has been
// removed, and its attributes. Only CAP_NET_ADMIN may ask the socket for it;
// for others the name is looked up where the task would.
func (s *unixSock) boundFile(fd int, name string) (string, *unix.Stat_t, error) {
	var st unix.Stat_t
	if p, err := unix.IoctlRetInt(fd, siocUnixFile); err == nil {
		defer unix.Close(p)
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", p))
		if err != nil {
			return "", nil, err
		}
		if err := unix.Fstat(p, &st); err != nil {
			return "", nil, err
		}
		if st.Nlink == 0 || strings.HasSuffix(link, " (deleted)") {
			return "", &st, nil
		}
		return link, &st, nil
	}
	base := fmt.Sprintf("/proc/%d/root", s.f.PID)
	if !filepath.IsAbs(name) {
		base = fmt.Sprintf("/proc/%d/cwd", s.f.PID)
	}
	dir, err := os.Readlink(base)
	if err != nil {
		return "", nil, err
	}
	path := filepath.Join(dir, name)
	// It may have been renamed: programs do, to put a socket in its place at once.
	places := []string{path}
	if all, err := os.ReadDir(filepath.Dir(path)); err == nil {
		for _, e := range all {
			if e.Type()&os.ModeSocket != 0 {
				places = append(places, filepath.Join(filepath.Dir(path), e.Name()))
			}
		}
	}
	for _, p := range places {
		if err := unix.Lstat(p, &st); err == nil && uint32(st.Ino) == s.diag.VFSIno && kernelDev(st.Dev) == uint64(s.diag.VFSDev) {
			return p, &st, nil
		}
	}
	// Gone, or somewhere else; nothing more is to be learnt.
	st = unix.Stat_t{Mode: 0o755, Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	return "", &st, nil
}

// Complete looks at who is connected to whom.
func (unixSocket) Complete(d *Dump) error {
	v, ok := d.values[unixDumpKey{}]
	if !ok {
		return nil // no unix socket was met
	}
	u := v.(*unixDump)
	waiting := map[uint32]*sockdiag.Unix{} // client: the listener in whose queue it is
	for i := range u.list {
		for _, c := range u.list[i].Icons {
			waiting[c] = &u.list[i]
		}
	}
	for _, s := range u.order {
		if s.f.Entry == nil {
			continue
		}
		switch {
		case s.diag.State == stateListen:
			u.listener(d, s)
		case s.diag.HasPeer && s.diag.Peer != 0:
			u.peer(d, s)
		case s.diag.HasPeer && waiting[s.diag.Ino] != nil:
			u.unaccepted(d, s, waiting[s.diag.Ino])
		case s.diag.HasPeer:
			x := d.sockExtra(s.f)
			x.PeerGone = proto.Bool(true)
			if len(s.peerName) > 2 {
				x.PeerName = s.peerName
			}
		}
	}
	return nil
}

// listener looks at the clients that wait in a listener's queue.
func (u *unixDump) listener(d *Dump, l *unixSock) {
	x := d.sockExtra(l.f)
	const remedy = "let the program accept it first"
	look := ""
	for _, c := range l.diag.Icons {
		switch s := u.socks[c]; {
		case c == 0:
			look = "a client that has closed its end already waits to be accepted"
		case s == nil:
			d.Refusal(l.f, holderOf(uint64(c))+", outside the tree, waits to be accepted", remedy)
			continue
		case s.diag.WQueue != 0:
			look = "data has been sent over a connection that nobody has accepted yet"
		}
		x.Pending = append(x.Pending, c)
	}
	if look == "" || len(x.Pending) < len(l.diag.Icons) {
		return
	}
	if err := u.arrived(d, l, x); err != nil {
		d.NotNow(l.f, fmt.Sprintf("%s (%v)", look, err), remedy)
	}
}

// unaccepted looks at a client that waits in a listener's queue.
func (u *unixDump) unaccepted(d *Dump, s *unixSock, l *sockdiag.Unix) {
	if u.socks[l.Ino] == nil {
		d.Refusal(s.f, "it waits to be accepted by "+holderOf(uint64(l.Ino))+", outside the tree", "checkpoint that process too, or close the connection")
		return
	}
	s.entry.Peer = proto.Uint32(l.Ino)
	if len(s.f.Holders) == 0 {
		return
	}
	// Who connected is not to be learnt; most likely who has it.
	pid := s.f.Holders[0].PID
	if st, err := procfs.ReadStatus(pid, 0); err == nil {
		x := d.sockExtra(s.f)
		x.ByPid, x.ByUid, x.ByGid = proto.Uint32(uint32(pid)), proto.Uint32(st.Uid[1]), proto.Uint32(st.Gid[1])
	}
}

// peer looks at a socket's peer.
func (u *unixDump) peer(d *Dump, s *unixSock) {
	if u.socks[s.diag.Peer] != nil {
		return
	}
	if s.diag.Type == unix.SOCK_DGRAM && len(s.peerName) > 2 {
		// A client of a server that has a name: a log daemon.
		d.sockExtra(s.f).PeerName = s.peerName
		s.entry.Peer = proto.Uint32(0)
		return
	}
	d.Refusal(s.f, "it is connected to "+holderOf(uint64(s.diag.Peer))+", outside the tree", "checkpoint that process too, or close the connection")
}

// sameName tells whether two sockets have the same name and file.
func sameName(a, b *sk_unix.UnixSkEntry, pa, pb string) bool {
	return len(a.GetName()) > 0 && bytes.Equal(a.GetName(), b.GetName()) && pa == pb
}
