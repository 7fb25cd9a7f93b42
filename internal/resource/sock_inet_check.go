package resource

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// Check finds addresses that are taken or not there.
func (inetSocket) Check(r *Restore, e *fdinfo.FileEntry) error {
	u, err := RestoreValue(r, inetCheckKey{}, func() (*inetRestore, error) { return loadInet(r) })
	if err != nil {
		return err
	}
	s := u.byID[e.GetId()]
	if s == nil || !s.src.set() {
		return nil
	}
	if !s.src.addr.IsUnspecified() && !s.src.addr.IsLoopback() && !localAddrs()[s.src.addr.Unmap()] && !freeAddr(s) {
		r.Refuse.Add(fault.Reason{Object: s.what(), Why: "this machine does not have its address", Remedy: "add the address to an interface (ip address add)"})
		return nil
	}
	udp := s.e.GetType() == unix.SOCK_DGRAM && (s.proto() == unix.IPPROTO_UDP || s.proto() == unix.IPPROTO_UDPLITE)
	bound := s.tcp() && (s.state() == stateListen || s.state() == stateClose) && !s.is(tcpOver)
	if !bound && !udp {
		return nil
	}
	fd, err := unix.Socket(s.family(), int(s.e.GetType())|unix.SOCK_CLOEXEC, s.proto())
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	restoreOpts(r, s.what(), fd, true, s.fields(), s.x)
	if s.tcp() {
		reuse(fd)
	}
	if err := sys.Bind(fd, s.src.sockaddr(s.family())); errors.Is(err, unix.EADDRINUSE) {
		s.portTaken(r)
	}
	return nil
}

// portTaken refuses a port that cannot be bound, unless all that is in the way
// can be taken away.
func (s *inetEnd) portTaken(r *Restore) {
	who, all := "", true
	for _, g := range portUsers(s.proto(), s.src.port) {
		if g.Ino != 0 && who == "" {
			who = holderOf(uint64(g.Ino))
		}
		all = all && ended(g)
	}
	switch {
	case who != "":
		r.Refuse.Add(fault.Reason{Object: s.what(), Why: "its port is taken by " + who, Remedy: "end that process"})
	case !all || !mayRepair():
		r.Refuse.Add(fault.Reason{Object: s.what(), Why: "its port is still taken by connections that have ended", Remedy: "wait a minute"})
	}
}

type inetCheckKey struct{}

// freeAddr tells whether a socket may have addresses that the machine has not.
func freeAddr(s *inetEnd) bool {
	if s.e.GetIpOpts().GetFreebind() || s.x.GetAddrForeign() || s.src.addr.IsMulticast() {
		return true
	}
	for _, o := range s.x.GetOpts() {
		l, n := int(o.GetLevel()), int(o.GetName())
		if (l == unix.IPPROTO_IP && n == unix.IP_TRANSPARENT) || (l == unix.IPPROTO_IPV6 && (n == unix.IPV6_TRANSPARENT || n == unix.IPV6_FREEBIND)) {
			return true
		}
	}
	// 127.0.0.0/8 is this machine's, and so are broadcast addresses, roughly.
	return s.src.addr.Is4() && s.src.addr.As4()[3] == 255
}

// ended tells what the kernel keeps, for a minute at most, of a connection whose
// program has gone, with all its bytes acknowledged. It keeps a port from being
// bound, and is of no use to anyone else.
func ended(g sockdiag.Inet) bool {
	switch g.State {
	case stateTimeWait, stateFinWait2:
		return g.Ino == 0
	case stateFinWait1, stateLastAck, stateClosing:
		return g.Ino == 0 && g.WQueue <= 1 // the end itself
	}
	return false
}

// portUsers gives what there is at a local port.
func portUsers(proto int, port uint16) (out []sockdiag.Inet) {
	if proto == unix.IPPROTO_MPTCP {
		proto = unix.IPPROTO_TCP
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		all, err := sockdiag.ListInet(family, uint8(proto), ^uint32(0))
		if err != nil {
			continue
		}
		for _, g := range all {
			if g.Src.Port() == port {
				out = append(out, g)
			}
		}
	}
	return out
}
