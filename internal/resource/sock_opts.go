package resource

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	sk_opts "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-opts"
	tcp_stream "github.com/checkpoint-restore/go-criu/v8/crit/images/tcp-stream"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Socket options: one table for all sockets. Each option is read as getsockopt(2)
// gives it and, at the restore, set where the new socket has another value. An
// option for which the schema has a field lies there; the others lie in
// sock_extra.opts, where they differ from those of a socket that has just been
// made.

// sockOpt is one option.
type sockOpt struct {
	level, name int
	field       string // in the schema: "so_mark", "ip.ttl", "tcp.cork", "inet.v6only"
	size        int    // bytes to read at most; 0 for an int
	when        func(s *sock, st sockState) bool
	early       bool // counts at bind, connect or listen
	force       int  // another name that sets it beyond the machine's limits
}

// sockState is what decides whether an option is one of this socket's own.
type sockState struct {
	listen bool // of TCP
	closed bool // not connected, nor ever been
}

func idleTCP(_ *sock, st sockState) bool   { return st.listen || st.closed }
func listenTCP(_ *sock, st sockState) bool { return st.listen }
func manyCast(s *sock, _ sockState) bool   { return s.typ != unix.SOCK_STREAM }
func isInet(s *sock, _ sockState) bool {
	return s.domain != unix.AF_UNIX && s.domain != unix.AF_NETLINK
}
func isRaw(s *sock, _ sockState) bool { return s.typ == unix.SOCK_RAW }

// has tells whether sockets of this kind have options of a level.
func (o *sockOpt) has(s *sock, st sockState) bool {
	inet := s.domain == unix.AF_INET || s.domain == unix.AF_INET6
	var ok bool
	switch o.level {
	case unix.SOL_SOCKET:
		ok = true
	case unix.IPPROTO_IP:
		ok = inet
	case unix.IPPROTO_IPV6, unix.SOL_ICMPV6:
		ok = s.domain == unix.AF_INET6
	case unix.SOL_RAW:
		ok = s.domain == unix.AF_INET
	case unix.IPPROTO_TCP:
		ok = inet && s.tcp()
	case unix.IPPROTO_UDP:
		ok = inet && (s.proto == unix.IPPROTO_UDP || s.proto == unix.IPPROTO_UDPLITE)
	case unix.IPPROTO_UDPLITE:
		ok = inet && s.proto == unix.IPPROTO_UDPLITE
	case unix.AF_VSOCK: // which is their level, too
		ok = s.domain == unix.AF_VSOCK
	case unix.SOL_NETLINK:
		ok = s.domain == unix.AF_NETLINK
	}
	return ok && (o.when == nil || o.when(s, st))
}

// tcp tells whether a socket is TCP or TCP in disguise.
func (s *sock) tcp() bool {
	return s.typ == unix.SOCK_STREAM && (s.proto == unix.IPPROTO_TCP || s.proto == unix.IPPROTO_MPTCP)
}

// String names an option in messages.
func (o *sockOpt) String() string {
	if o.field != "" {
		return "socket option " + o.field
	}
	return fmt.Sprintf("socket option %d/%d", o.level, o.name)
}

// errNoOption: sockets of this kind do not have the option.
var errNoOption = errors.New("no such option")

// read gives the option's value; nil when the socket has none now.
func (o *sockOpt) read(fd int) ([]byte, error) {
	v, err := o.value(fd)
	if errors.Is(err, errNoOption) {
		err = nil
	}
	return v, err
}

func (o *sockOpt) value(fd int) ([]byte, error) {
	size := o.size
	if size == 0 {
		size = 4
	}
	b := make([]byte, size)
	n, err := sys.Getsockopt(fd, o.level, o.name, b)
	switch err {
	case nil:
		return b[:min(n, size)], nil
	case unix.ENOPROTOOPT, unix.EOPNOTSUPP:
		return nil, errNoOption
	case unix.EINVAL, unix.ENOTCONN, unix.EPERM, unix.ENOENT:
		return nil, nil
	}
	return nil, fmt.Errorf("%s: %w", o, err)
}

// set sets the option where it differs.
func (o *sockOpt) set(fd int, want []byte) error {
	have, err := o.read(fd)
	if err != nil || bytes.Equal(have, want) {
		return err
	}
	switch [2]int{o.level, o.name} {
	case [2]int{unix.SOL_SOCKET, unix.SO_TXREHASH}:
		if want[0] == 0xff { // the machine's default, which is read so
			want = binary.NativeEndian.AppendUint32(nil, ^uint32(0))
		}
	case [2]int{unix.SOL_SOCKET, unix.SO_BINDTODEVICE}:
		want = bytes.TrimRight(want, "\x00")
		if cutNUL(have) == string(want) {
			return nil
		}
	}
	if o.force == 0 {
		return sys.Setsockopt(fd, o.level, o.name, want)
	}
	// The kernel doubles what is set, for its own bookkeeping, and tells the
	// double.
	half := binary.NativeEndian.AppendUint32(nil, (binary.NativeEndian.Uint32(want)+1)/2)
	if err := sys.Setsockopt(fd, o.level, o.force, half); err != unix.EPERM {
		return err
	}
	if err := sys.Setsockopt(fd, o.level, o.name, half); err != nil {
		return err
	}
	if have, err = o.read(fd); err == nil && binary.NativeEndian.Uint32(have) < binary.NativeEndian.Uint32(want) {
		err = fmt.Errorf("only %d instead of %d bytes are allowed", binary.NativeEndian.Uint32(have), binary.NativeEndian.Uint32(want))
	}
	return err
}

// optFields are the schema's messages that have fields for options.
type optFields struct {
	opts *sk_opts.SkOptsEntry
	inet *sk_inet.InetSkEntry // nil for others
}

// message gives the message and field for a name such as "ip.ttl". For reading
// it may be nil.
func (e *optFields) message(name string, write bool) (protoreflect.Message, protoreflect.FieldDescriptor) {
	in, field, ok := strings.Cut(name, ".")
	if !ok {
		in, field = "", name
	}
	var m proto.Message
	switch {
	case in == "":
		m = e.opts
	case e.inet == nil:
		return nil, nil
	case in == "inet":
		m = e.inet
	case in == "tcp":
		if e.inet.TcpOpts == nil && write {
			e.inet.TcpOpts = &tcp_stream.TcpOptsEntry{}
		}
		m = e.inet.TcpOpts
	default:
		if e.inet.IpOpts == nil && write {
			e.inet.IpOpts = &sk_inet.IpOptsEntry{}
		}
		m = e.inet.IpOpts
		if in == "raw" {
			if e.inet.IpOpts.GetRaw() == nil && write {
				e.inet.IpOpts.Raw = &sk_inet.IpOptsRawEntry{}
			}
			m = e.inet.IpOpts.GetRaw()
		}
	}
	r := m.ProtoReflect()
	return r, r.Descriptor().Fields().ByName(protoreflect.Name(field))
}

// put stores a value in the schema's field.
func (e *optFields) put(o *sockOpt, v []byte) {
	ne := binary.NativeEndian
	switch o.field {
	case "so_bound_dev":
		if dev := cutNUL(v); dev != "" {
			e.opts.SoBoundDev = proto.String(dev)
		}
	case "so_linger":
		if ne.Uint32(v) != 0 {
			e.opts.SoLinger = proto.Uint32(ne.Uint32(v[4:]))
		}
	case "so_rcv_tmo":
		e.opts.SoRcvTmoSec, e.opts.SoRcvTmoUsec = proto.Uint64(ne.Uint64(v)), proto.Uint64(ne.Uint64(v[8:]))
	case "so_snd_tmo":
		e.opts.SoSndTmoSec, e.opts.SoSndTmoUsec = proto.Uint64(ne.Uint64(v)), proto.Uint64(ne.Uint64(v[8:]))
	default:
		m, f := e.message(o.field, true)
		var n uint32
		switch len(v) {
		case 4:
			n = ne.Uint32(v)
		case 1:
			n = uint32(v[0])
		}
		if f.Kind() == protoreflect.BoolKind {
			m.Set(f, protoreflect.ValueOfBool(n != 0))
		} else {
			m.Set(f, protoreflect.ValueOfUint32(n))
		}
	}
}

// get gives the stored value of a field; nil when there is none.
func (e *optFields) get(o *sockOpt) []byte {
	ne := binary.NativeEndian
	pair := func(a, b uint64) []byte { return ne.AppendUint64(ne.AppendUint64(nil, a), b) }
	switch o.field {
	case "so_bound_dev":
		return append([]byte(e.opts.GetSoBoundDev()), 0)
	case "so_linger":
		if e.opts.SoLinger == nil {
			return nil
		}
		return ne.AppendUint32(ne.AppendUint32(nil, 1), e.opts.GetSoLinger())
	case "so_rcv_tmo":
		return pair(e.opts.GetSoRcvTmoSec(), e.opts.GetSoRcvTmoUsec())
	case "so_snd_tmo":
		return pair(e.opts.GetSoSndTmoSec(), e.opts.GetSoSndTmoUsec())
	}
	m, f := e.message(o.field, false)
	if m == nil || !m.IsValid() || !m.Has(f) {
		return nil
	}
	v := m.Get(f)
	if f.Kind() == protoreflect.BoolKind {
		n := uint32(0)
		if v.Bool() {
			n = 1
		}
		return ne.AppendUint32(nil, n)
	}
	return ne.AppendUint32(nil, uint32(v.Uint()))
}

type optDefaultsKey struct {
	domain, typ, proto int
	st                 sockState
}

// optDefault is what a new socket has.
type optDefault struct {
	value   []byte
	missing bool // sockets of this kind do not have it
}

// optDefaults gives what a new socket of the same kind has; nothing when none
// can be made: then everything is saved.
func optDefaults(d *Dump, s *sock, st sockState) []optDefault {
	m, _ := Value(d, optDefaultsKey{s.domain, s.typ, s.proto, st}, func() ([]optDefault, error) {
		m := make([]optDefault, len(sockOpts))
		fd, err := unix.Socket(s.domain, s.typ|unix.SOCK_CLOEXEC, s.proto)
		if err != nil {
			return m, nil
		}
		defer unix.Close(fd)
		for i := range sockOpts {
			o := &sockOpts[i]
			if !o.has(s, st) {
				m[i].missing = true
				continue
			}
			v, err := o.value(fd)
			m[i] = optDefault{v, errors.Is(err, errNoOption)}
		}
		return m, nil
	})
	return m
}

// collectOpts saves the options of a socket.
func collectOpts(d *Dump, f *File, fd int, s *sock, st sockState, e *optFields) error {
	e.opts.SoSndbuf, e.opts.SoRcvbuf = proto.Uint32(0), proto.Uint32(0)
	def := optDefaults(d, s, st)
	for i := range sockOpts {
		o := &sockOpts[i]
		if def[i].missing || !o.has(s, st) {
			continue
		}
		v, err := o.read(fd)
		if err != nil {
			return err
		}
		switch {
		case v == nil:
		case o.field != "":
			e.put(o, v)
		case !bytes.Equal(v, def[i].value):
			x := d.sockExtra(f)
			x.Opts = append(x.Opts, &fm.SockOpt{Level: proto.Int32(int32(o.level)), Name: proto.Int32(int32(o.name)), Value: v})
		}
	}
	prog, err := sys.GetFilter(fd)
	switch {
	case errors.Is(err, unix.EACCES):
		d.Refusal(f, "an eBPF program filters what it receives", "detach it (SO_DETACH_FILTER) before the checkpoint")
	case err != nil && !errors.Is(err, unix.ENOPROTOOPT):
		return fmt.Errorf("socket filter: %w", err)
	}
	for ; len(prog) >= 8; prog = prog[8:] { // struct sock_filter: code, jt, jf, k
		ne := binary.NativeEndian
		e.opts.SoFilter = append(e.opts.SoFilter,
			uint64(ne.Uint16(prog))<<48|uint64(prog[2])<<40|uint64(prog[3])<<32|uint64(ne.Uint32(prog[4:])))
	}
	return nil
}

// restoreOpts sets the options of a socket: before it is bound those that count
// then, at the end all. What cannot be set is noted.
func restoreOpts(r *Restore, what string, fd int, early bool, e *optFields, x *fm.SockExtra) {
	if e.opts == nil { // an image that says nothing of them
		e.opts = &sk_opts.SkOptsEntry{}
	}
	saved := map[[2]int32][]byte{}
	for _, o := range x.GetOpts() {
		saved[[2]int32{o.GetLevel(), o.GetName()}] = o.GetValue()
	}
	for i := range sockOpts {
		o := &sockOpts[i]
		if early && !o.early || !early && o.field == "inet.v6only" {
			continue
		}
		if o.name == unix.SO_LOCK_FILTER && o.level == unix.SOL_SOCKET && !early {
			restoreFilter(r, what, fd, e.opts.GetSoFilter())
		}
		var v []byte
		if o.field != "" {
			v = e.get(o)
		} else {
			v = saved[[2]int32{int32(o.level), int32(o.name)}]
		}
		if len(v) == 0 {
			continue
		}
		if err := o.set(fd, v); err != nil {
			r.Note("%s: %s: %v", what, o, err)
		}
	}
}

func restoreFilter(r *Restore, what string, fd int, filter []uint64) {
	if len(filter) == 0 {
		return
	}
	prog := make([]byte, 0, 8*len(filter))
	ne := binary.NativeEndian
	for _, f := range filter {
		prog = ne.AppendUint16(prog, uint16(f>>48))
		prog = append(prog, byte(f>>40), byte(f>>32))
		prog = ne.AppendUint32(prog, uint32(f))
	}
	if err := sys.SetFilter(fd, prog); err != nil {
		r.Note("%s: its filter could not be attached: %v", what, err)
	}
}
