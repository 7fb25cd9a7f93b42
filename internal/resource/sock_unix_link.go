package resource

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// What follows when all files are open, for all unix sockets at once and in this
// order: messages into the queues (some carry descriptors of any kind), the
// connections of datagram sockets, which shut out other senders, shutdowns, the
// end of peers that were closed, options (SO_PASSCRED would give names to sockets
// that connect), and the files of bound sockets to their places.

// Link does it, the first time it is called.
func (unixSocket) Link(r *Restore, e *fdinfo.FileEntry) error {
	u, err := RestoreValue(r, unixRestoreKey{}, func() (*unixRestore, error) { return openUnix(r) })
	if err != nil || u.linked {
		return err
	}
	u.linked = true
	err = u.link()
	// Stand-ins for closed peers must be gone in any case.
	for _, s := range u.all {
		if s.gone && s.fd >= 0 {
			unix.Close(s.fd)
			s.fd = -1
		}
	}
	return err
}

func (u *unixRestore) link() error {
	for _, s := range u.all {
		if !s.gone {
			if err := u.fill(s); err != nil {
				return fmt.Errorf("%s: queue: %w", s.what(), err)
			}
		}
	}
	for _, s := range u.all {
		if err := u.aim(s); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
	}
	for _, s := range u.all {
		if err := u.settle(s); err != nil {
			return fmt.Errorf("%s: %w", s.what(), err)
		}
	}
	return u.place()
}

// fill puts a socket's messages into its queue.
func (u *unixRestore) fill(s *unixEnd) error {
	msgs := u.im.queue[s.id]
	if len(msgs) == 0 {
		return nil
	}
	senders := &senders{u: u, to: s, made: map[string]int{}}
	defer senders.close()
	for _, m := range msgs {
		from, to, err := senders.of(m)
		if err != nil {
			return err
		}
		if err := u.send(from, to, m); err != nil {
			return err
		}
	}
	return nil
}

// senders finds, for the messages of one queue, the socket each came from, which
// is what the receiver is told.
type senders struct {
	u    *unixRestore
	to   *unixEnd
	made map[string]int // by name
}

func (s *senders) close() {
	for _, fd := range s.made {
		unix.Close(fd)
	}
}

// of gives the socket to send a message from, and the place of the receiver
// where it must be named.
func (s *senders) of(m *sockMessage) (fd int, to *unixEnd, err error) {
	t := s.to
	if !t.dgram() {
		if t.mate == nil {
			return -1, nil, fault.Errorf(fault.ErrDamaged, "messages without a sender")
		}
		return s.loud(t.mate.fd), nil, nil
	}
	var from []byte
	if len(m.addr) > 2 {
		from = m.addr[2:]
	}
	if p := t.mate; p != nil && (len(t.name()) == 0 || string(p.name()) == string(from)) {
		return s.loud(p.fd), nil, nil
	}
	if len(t.name()) == 0 {
		return -1, nil, fault.Errorf(fault.ErrDamaged, "messages without a sender")
	}
	for _, o := range s.u.all {
		if len(from) > 0 && string(o.name()) == string(from) && o.dgram() {
			return s.loud(o.fd), t, nil
		}
	}
	key := string(from)
	if fd, ok := s.made[key]; ok {
		return fd, t, nil
	}
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, nil, err
	}
	s.made[key] = s.loud(fd)
	if len(from) == 0 {
		return fd, t, nil
	}
	_, at, err := s.u.bind(fd, from, "")
	if errors.Is(err, unix.EADDRINUSE) {
		s.u.r.Note("%s: a message came from %s, which another process has now: it shows no sender", t.what(), cutNUL(from[1:]))
		return fd, t, nil
	}
	if at != nil {
		err = errors.Join(err, unix.Unlink(at.path()))
	}
	return fd, t, err
}

const plenty = 1 << 29 // bytes

// loud lets a socket send as much as a queue may hold; the saved size is set
// with the other options.
func (s *senders) loud(fd int) int {
	have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err == nil && have < plenty {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, plenty) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, plenty)
		}
	}
	return fd
}

// send sends one message.
func (u *unixRestore) send(from int, to *unixEnd, m *sockMessage) error {
	var oob []byte
	if ids := m.fds; len(ids) > 0 {
		fds := make([]int, len(ids))
		for i, id := range ids {
			fd, err := u.r.Open(id)
			if err != nil {
				return fmt.Errorf("descriptor in flight: %w", err)
			}
			fds[i] = fd
		}
		oob = unix.UnixRights(fds...)
	}
	rights := len(oob)
	cred := m.cred
	if cred != nil {
		c := *cred
		if u.r.PID != nil {
			c.Pid = int32(u.r.PID(int(c.Pid)))
		}
		oob = append(oob, unix.UnixCredentials(&c)...)
	}
	var dest []byte
	if to != nil {
		dest = sockaddrUnix(to.name())
		if to.at != nil {
			dest = u.procPath(to.at)
		}
	}
	flags := unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	if m.oob {
		flags |= unix.MSG_OOB
	}
	data := m.data
	for {
		n, err := sys.Sendmsg(from, data, oob, dest, flags)
		if cred != nil && (errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM)) {
			u.r.Note("a message in a unix socket came from pid %d (user %d), which cannot be said again: %v", cred.Pid, cred.Uid, err)
			cred, oob = nil, oob[:rights]
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("it held more than this machine lets it hold (net.core.wmem_max, net.unix.max_dgram_qlen): %w", err)
		}
		if err != nil {
			return err
		}
		if n >= len(data) {
			return nil
		}
		data, oob = data[n:], nil
	}
}

// procPath gives an address for a bound file that needs no working directory.
func (u *unixRestore) procPath(at *boundAt) []byte {
	return pathAddr(fmt.Appendf(nil, "/proc/self/fd/%d/%s", at.dir.fd, at.name))
}

// aim connects a datagram socket. One that is itself somebody's target comes
// after that one: it takes messages from its own peer only, from then on.
func (u *unixRestore) aim(s *unixEnd) error {
	if s.linked || s.gone || !s.dgram() || s.paired {
		return nil
	}
	s.linked = true
	for _, o := range u.aimed[s] {
		if o != s && s.target != o {
			if err := u.aim(o); err != nil {
				return err
			}
		}
	}
	var to []byte
	switch t := s.target; {
	case t != nil && t.at != nil:
		to = u.procPath(t.at)
	case t != nil:
		to = sockaddrUnix(t.name())
	case len(s.x.GetPeerName()) > 2 && !s.x.GetPeerGone():
		to = s.x.GetPeerName()
		if err := sys.Connect(s.fd, to); err != nil {
			u.r.Note("%s was connected to %s, outside the tree, which does not answer: %v", s.what(), cutNUL(to[2:]), err)
		}
		return nil
	default:
		return nil
	}
	if err := sys.Connect(s.fd, to); err != nil {
		return fmt.Errorf("connecting to %s: %w", s.target.what(), err)
	}
	return nil
}

// settle gives a socket its last state.
func (u *unixRestore) settle(s *unixEnd) error {
	if s.gone {
		return nil
	}
	gone := s.mate != nil && s.mate.gone
	if s.x.GetError() && (!gone || s.dgram()) {
		u.r.Note("%s: an error that waited to be told is lost", s.what())
	}
	if gone && !s.dgram() {
		if s.x.GetError() {
			// A peer that is closed before it has read everything resets the
			// connection.
			if _, err := sys.Sendmsg(s.fd, []byte{0}, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != nil {
				return fmt.Errorf("resetting: %w", err)
			}
		}
		unix.Close(s.mate.fd)
		s.mate.fd = -1
	}
	if how := int(s.e.GetShutdown()); how != 0 {
		// The schema's and the kernel's bits are one more than SHUT_RD and so on.
		if err := unix.Shutdown(s.fd, how-1); err != nil && err != unix.ENOTCONN {
			return fmt.Errorf("shutdown: %w", err)
		}
	}
	restoreOpts(u.r, s.what(), s.fd, false, &optFields{opts: s.e.GetOpts()}, s.x)
	if err := restoreCommon(u.r, s.id, s.fd); err != nil {
		return err
	}
	return setStatus(s.fd, s.e.GetFlags())
}

// place has the files of bound sockets take their places, when nothing can fail
// any more.
func (u *unixRestore) place() error {
	for _, s := range u.all {
		if s.at == nil {
			continue
		}
		p := s.e.GetFilePerms()
		if s.gone || s.e.GetDeleted() || s.x.GetPath() == "" {
			if err := os.Remove(s.at.path()); err != nil {
				return err
			}
			continue
		}
		if p != nil {
			if err := unix.Chown(s.at.path(), int(p.GetUid()), int(p.GetGid())); err != nil {
				u.r.Note("%s: its file will belong to user %d, not %d: %v", s.what(), os.Geteuid(), p.GetUid(), err)
			}
			if err := unix.Chmod(s.at.path(), p.GetMode()&0o7777); err != nil {
				return err
			}
		}
		at, path := s.at.path(), s.x.GetPath()
		u.r.atCommit(func() error { return os.Rename(at, path) })
	}
	u.r.atCommit(func() error {
		u.scratch.remove()
		return nil
	})
	return nil
}

func dirOf(path string) string { return filepath.Dir(path) }

// Check finds names that are taken.
func (unixSocket) Check(r *Restore, e *fdinfo.FileEntry) error {
	s := e.GetUsk()
	im, err := r.socks()
	if err != nil {
		return err
	}
	x := im.of(e.GetId())
	name := s.GetName()
	if len(name) == 0 {
		return nil
	}
	refuse := func(why, remedy string) {
		r.Refuse.Add(fault.Reason{Object: fmt.Sprintf("unix socket %s", printable(name)), Why: why, Remedy: remedy})
	}
	list, err := RestoreValue(r, unixCheckKey{}, sockdiag.ListUnix)
	if err != nil {
		return err
	}
	if isAbstract(name) {
		for i := range list {
			if string(list[i].Name) == string(name) && list[i].Type == uint8(s.GetType()) {
				refuse("its name is taken by "+holderOf(uint64(list[i].Ino)), "end that process")
				return nil
			}
		}
		return nil
	}
	path := x.GetPath()
	connected := s.GetState() == stateEstablished && s.GetType() != unix.SOCK_DGRAM
	if path == "" || s.GetDeleted() || connected {
		return nil // no file is made
	}
	var dir, st unix.Stat_t
	if err := unix.Stat(dirOf(path), &dir); err != nil || dir.Mode&unix.S_IFMT != unix.S_IFDIR {
		refuse("the directory of "+path+" is missing", "make it")
		return nil
	}
	if err := unix.Lstat(path, &st); err != nil {
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		refuse(path+" is now a "+typeName(st.Mode&unix.S_IFMT), "move it away")
		return nil
	}
	for i := range list {
		l := &list[i]
		if l.HasVFS && l.VFSIno == uint32(st.Ino) && uint64(l.VFSDev) == kernelDev(st.Dev) {
			refuse("another socket is bound to "+path+", of "+holderOf(uint64(l.Ino)), "end that process")
			return nil
		}
	}
	return nil
}

type unixCheckKey struct{}

func printable(name []byte) string {
	if isAbstract(name) {
		return "@" + string(name[1:])
	}
	return cutNUL(name)
}
