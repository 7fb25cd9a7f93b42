package resource

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	sk_opts "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-opts"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// Internet sockets (ip(7), ipv6(7)): TCP, UDP, UDP-Lite, raw and ping sockets,
// and listeners of MPTCP. The addresses and options are read from a duplicate,
// TCP's state from TCP_INFO. What differs by protocol is in sock_tcp.go and
// sock_udp.go.
type inetSocket struct{}

func init() { Register(inetSocket{}) }

func (inetSocket) Name() string            { return "internet socket" }
func (inetSocket) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_INETSK} }
func (inetSocket) Match(f *File) bool      { return matchFamily(f, unix.AF_INET, unix.AF_INET6) }

// protocols names those that are refused, and those in messages.
var protocols = map[int]string{
	unix.IPPROTO_TCP: "TCP", unix.IPPROTO_UDP: "UDP", unix.IPPROTO_UDPLITE: "UDP-Lite", unix.IPPROTO_MPTCP: "MPTCP",
	unix.IPPROTO_SCTP: "SCTP", unix.IPPROTO_DCCP: "DCCP", unix.IPPROTO_L2TP: "L2TP", ipprotoSMC: "SMC",
}

// The schema's names for what was shut down.
const (
	shutRead  = sk_opts.SkShutdown_READ
	shutWrite = sk_opts.SkShutdown_WRITE
	shutBoth  = sk_opts.SkShutdown_BOTH
)

const ipprotoSMC = 256 // IPPROTO_SMC, include/uapi/linux/in.h, Linux 6.11

// inetSock is an internet socket in the tree.
type inetSock struct {
	f        *File
	sock     *sock
	entry    *sk_inet.InetSkEntry
	src, dst endpoint // dst is not valid when there is none
	tcp      *tcpSock // of TCP
}

type inetDumpKey struct{}

// inetDump is what is kept of the internet sockets during a dump.
type inetDump struct{ order []*inetSock }

func (d *Dump) inetSocks() *inetDump {
	u, _ := Value(d, inetDumpKey{}, func() (*inetDump, error) { return &inetDump{}, nil })
	return u
}

func (inetSocket) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	s := sockOf(f)
	fd, done, err := f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	if foreign, err := foreignNet(d, f, fd); foreign || err != nil {
		return nil, err
	}
	switch {
	case s.tcp(), s.proto == unix.IPPROTO_UDP, s.proto == unix.IPPROTO_UDPLITE, s.typ == unix.SOCK_RAW:
	case s.typ == unix.SOCK_DGRAM && (s.proto == unix.IPPROTO_ICMP || s.proto == unix.IPPROTO_ICMPV6):
	default:
		name := protocols[s.proto]
		if name == "" {
			name = fmt.Sprintf("protocol %d", s.proto)
		}
		d.Refusal(f, name+": no way is known to save a socket of this protocol", "close it before the checkpoint")
		return nil, nil
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	ie := &sk_inet.InetSkEntry{
		Id: proto.Uint32(f.ID), Ino: proto.Uint32(uint32(f.Stat.Ino)), Family: proto.Uint32(uint32(s.domain)),
		Type: proto.Uint32(uint32(s.typ)), Proto: proto.Uint32(uint32(s.proto)), State: proto.Uint32(stateClose),
		Flags: proto.Uint32(f.Flags()), Backlog: proto.Uint32(0), Fown: o, Opts: &sk_opts.SkOptsEntry{},
	}
	is := &inetSock{f: f, sock: s, entry: ie}
	if err := is.addresses(fd); err != nil {
		return nil, err
	}
	if a := is.src.addr; is.src.port != 0 && !a.IsUnspecified() && !a.IsMulticast() && !isLocal(d, a) {
		d.sockExtra(f).AddrForeign = proto.Bool(true)
	}
	u := d.inetSocks()
	u.order = append(u.order, is)
	var st sockState
	ok := true
	if s.tcp() {
		ok, err = is.collectTCP(d, fd, &st)
	} else {
		ok, err = is.collectPackets(d, fd)
	}
	if !ok || err != nil {
		return nil, err
	}
	sockCommon(d, f)
	if err := collectOpts(d, f, fd, s, st, &optFields{opts: ie.Opts, inet: ie}); err != nil {
		return nil, err
	}
	e := entryOf(fdinfo.FdTypes_INETSK)
	e.Isk = ie
	return e, nil
}

// addresses reads the socket's own address and its peer's.
func (s *inetSock) addresses(fd int) error {
	sa, err := sys.Sockname(fd)
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if s.src, err = parseEndpoint(sa); err != nil {
		return err
	}
	switch sa, err = sys.Peername(fd); err {
	case nil:
		if s.dst, err = parseEndpoint(sa); err != nil {
			return err
		}
	case unix.ENOTCONN:
	default:
		return fmt.Errorf("address of the peer: %w", err)
	}
	e := s.entry
	e.SrcPort, e.SrcAddr = proto.Uint32(uint32(s.src.port)), s.src.words(s.sock.domain)
	s.setDst()
	for _, p := range []endpoint{s.src, s.dst} {
		if p.scope != 0 {
			i, err := net.InterfaceByIndex(int(p.scope))
			if err != nil {
				return fmt.Errorf("interface %d: %w", p.scope, err)
			}
			e.Ifname = proto.String(i.Name)
		}
	}
	return nil
}

func (s *inetSock) setDst() {
	s.entry.DstPort, s.entry.DstAddr = proto.Uint32(uint32(s.dst.port)), s.dst.words(s.sock.domain)
}

// endpoint is an address, a port and, of a link-local address, an interface.
type endpoint struct {
	addr  netip.Addr
	port  uint16
	scope uint32
}

// parseEndpoint reads a struct sockaddr_in or sockaddr_in6 (include/uapi/linux/in.h, in6.h).
func parseEndpoint(sa []byte) (endpoint, error) {
	if len(sa) >= 16 {
		port := binary.BigEndian.Uint16(sa[2:])
		switch binary.NativeEndian.Uint16(sa) {
		case unix.AF_INET:
			return endpoint{addr: netip.AddrFrom4([4]byte(sa[4:])), port: port}, nil
		case unix.AF_INET6:
			if len(sa) >= 28 {
				return endpoint{netip.AddrFrom16([16]byte(sa[8:])), port, binary.NativeEndian.Uint32(sa[24:])}, nil
			}
		}
	}
	return endpoint{}, fmt.Errorf("an address of %d bytes and unknown form", len(sa))
}

func endpointAddr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// sockaddr gives the address for a socket of a family.
func (p endpoint) sockaddr(family int) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(family))
	b = binary.BigEndian.AppendUint16(b, p.port)
	if family == unix.AF_INET {
		a := p.addr.Unmap().As4()
		return append(append(b, a[:]...), make([]byte, 8)...)
	}
	a := p.addr.As16()
	b = append(append(b, 0, 0, 0, 0), a[:]...)
	return binary.NativeEndian.AppendUint32(b, p.scope)
}

// words gives the address as the schema keeps it: words in network byte order.
func (p endpoint) words(family int) (w []uint32) {
	n := 4
	if family == unix.AF_INET6 {
		n = 16
	}
	b := make([]byte, n)
	if p.addr.IsValid() {
		copy(b, p.addr.AsSlice())
	}
	for ; len(b) > 0; b = b[4:] {
		w = append(w, binary.NativeEndian.Uint32(b))
	}
	return w
}

// endpointOf reads what words wrote.
func endpointOf(family int, w []uint32, port uint32) (p endpoint, ok bool) {
	var b []byte
	for _, x := range w {
		b = binary.NativeEndian.AppendUint32(b, x)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok || a.Is4() != (family == unix.AF_INET) {
		return p, false
	}
	return endpoint{addr: a, port: uint16(port)}, true
}

// same gives the address in the one form in which both ends of a connection know
// it: a socket of IPv6 may have IPv4 addresses, mapped.
func (p endpoint) same() netip.AddrPort { return netip.AddrPortFrom(p.addr.Unmap(), p.port) }

func (p endpoint) set() bool { return p.port != 0 || (p.addr.IsValid() && !p.addr.IsUnspecified()) }

func (p endpoint) String() string {
	if !p.addr.IsValid() {
		return "nothing"
	}
	return net.JoinHostPort(p.addr.Unmap().String(), strconv.Itoa(int(p.port)))
}

type diagKey struct {
	family, proto int
	states        uint32
}

// diag gives what sock_diag tells of a socket, among those in some states
// (1<<TCP_LISTEN …); nil when it does not know it.
func (s *inetSock) diag(d *Dump, states uint32) (*sockdiag.Inet, error) {
	all, err := Value(d, diagKey{s.sock.domain, s.sock.proto, states}, func() (map[uint32]*sockdiag.Inet, error) {
		all, err := sockdiag.ListInet(uint8(s.sock.domain), uint8(s.sock.proto), states)
		if err != nil {
			return nil, fmt.Errorf("listing sockets: %w", err)
		}
		m := map[uint32]*sockdiag.Inet{}
		for i := range all {
			m[all[i].Ino] = &all[i]
		}
		return m, nil
	})
	return all[uint32(s.f.Stat.Ino)], err
}

type localKey struct{}

// isLocal tells whether an address belongs to this machine.
func isLocal(d *Dump, a netip.Addr) bool {
	a = a.Unmap()
	if a.IsLoopback() {
		return true
	}
	own, _ := Value(d, localKey{}, func() (map[netip.Addr]bool, error) { return localAddrs(), nil })
	return own[a.WithZone("")]
}

func localAddrs() map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return own
	}
	for _, x := range all {
		if n, ok := x.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				own[a.Unmap()] = true
			}
		}
	}
	return own
}

// Complete looks at who is connected to whom.
func (inetSocket) Complete(d *Dump) error {
	if _, ok := d.values[inetDumpKey{}]; !ok {
		return nil
	}
	return d.completeTCP(d.inetSocks())
}
