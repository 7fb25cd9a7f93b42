package fermata

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_inet "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-inet"
	sk_unix "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-unix"
	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/image/fm"
)

// file describes one descriptor.
func (r *inspector) file(d *fdinfo.FdinfoEntry) InspectedFile {
	out := InspectedFile{FD: int(d.GetFd()), ID: int(d.GetId()), Cloexec: d.GetFlags()&unix.FD_CLOEXEC != 0}
	e := r.files[d.GetId()]
	if e == nil {
		out.Kind, out.What = kindName(d.GetType()), "not in the image"
		return out
	}
	r.describe(&out, e)
	return out
}

// kindName names a kind that there is nothing more to say of.
func kindName(t fdinfo.FdTypes) string {
	switch t {
	case fdinfo.FdTypes_REG:
		return "file"
	case fdinfo.FdTypes_EVENTPOLL:
		return "epoll"
	case fdinfo.FdTypes_INETSK:
		return "inet socket"
	case fdinfo.FdTypes_UNIXSK:
		return "unix socket"
	case fdinfo.FdTypes_PACKETSK:
		return "packet socket"
	case fdinfo.FdTypes_NETLINKSK:
		return "netlink socket"
	case fdinfo.FdTypes_TTY:
		return "terminal"
	case fdinfo.FdTypes_NS:
		return "namespace"
	case fdinfo.FdTypes_TUNF:
		return "tun device"
	}
	return strings.ToLower(t.String())
}

// describe fills in what a file is, kind by kind.
func (r *inspector) describe(out *InspectedFile, e *fdinfo.FileEntry) {
	out.Kind = kindName(e.GetType())
	access := func(flags uint32) {
		switch {
		case flags&unix.O_PATH != 0:
			out.Access = "path"
		case flags&unix.O_ACCMODE == unix.O_WRONLY:
			out.Access = "w"
		case flags&unix.O_ACCMODE == unix.O_RDWR:
			out.Access = "rw"
		default:
			out.Access = "r"
		}
	}
	x := r.extra[e.GetId()]
	switch e.GetType() {
	case fdinfo.FdTypes_REG:
		f := e.GetReg()
		access(f.GetFlags())
		out.Kind, out.Offset = modeName(f.GetMode()), int64(f.GetPos())
		out.What = f.GetName() + fate(x)
	case fdinfo.FdTypes_PIPE:
		access(e.GetPipe().GetFlags())
		out.What = fmt.Sprintf("pipe %d", e.GetPipe().GetPipeId())
	case fdinfo.FdTypes_FIFO:
		out.What = r.path(e.GetFifo().GetRegfId())
		access(r.files[e.GetFifo().GetRegfId()].GetReg().GetFlags())
	case fdinfo.FdTypes_INETSK:
		out.Access = "rw"
		describeInet(out, e.GetIsk())
	case fdinfo.FdTypes_UNIXSK:
		out.Access = "rw"
		describeUnix(out, e.GetUsk())
	case fdinfo.FdTypes_NETLINKSK:
		out.Access = "rw"
		out.What = fmt.Sprintf("protocol %d, port %d", e.GetNlsk().GetProtocol(), e.GetNlsk().GetPortid())
	case fdinfo.FdTypes_EVENTFD:
		access(e.GetEfd().GetFlags())
		out.What = fmt.Sprintf("count %d", e.GetEfd().GetCounter())
	case fdinfo.FdTypes_EVENTPOLL:
		out.What = fmt.Sprintf("watches %d descriptors", len(e.GetEpfd().GetTfd()))
	case fdinfo.FdTypes_SIGNALFD:
		out.What = fmt.Sprintf("mask %#x", e.GetSgfd().GetSigmask())
	case fdinfo.FdTypes_INOTIFY:
		out.What = fmt.Sprintf("%d watches", len(e.GetIfy().GetWd()))
	case fdinfo.FdTypes_FANOTIFY:
		out.What = fmt.Sprintf("%d marks", len(e.GetFfy().GetMark()))
	case fdinfo.FdTypes_TIMERFD:
		t := e.GetTfd()
		out.What = fmt.Sprintf("clock %d, next in %d.%09d s, every %d.%09d s", t.GetClockid(), t.GetVsec(), t.GetVnsec(), t.GetIsec(), t.GetInsec())
	case fdinfo.FdTypes_MEMFD:
		m := e.GetMemfd()
		access(m.GetFlags())
		out.Offset = int64(m.GetPos())
		i := r.memfds[m.GetInodeId()]
		out.What = fmt.Sprintf("%q, %d bytes", i.GetName(), i.GetSize())
	case fdinfo.FdTypes_PIDFD:
		out.What = fmt.Sprintf("pid %d", e.GetPidfd().GetNspid())
	case fdinfo.FdTypes_TTY:
		access(e.GetTty().GetFlags())
		out.What = r.path(e.GetTty().GetRegfId())
		if out.What == "" {
			out.What = fmt.Sprintf("terminal %d", e.GetTty().GetTtyInfoId())
		}
	}
}

// modeName names the type of a file that was opened by its path.
func modeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	case unix.S_IFLNK:
		return "link"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket file"
	}
	return "file"
}

// fate tells what is special about a file by path.
func fate(x *fm.FileExtra) string {
	var s string
	if x.GetDeleted() {
		s += " (deleted)"
	}
	if l := x.GetLinkPath(); l != "" {
		s += " (now " + l + ")"
	}
	if x.GetSaved() != "" {
		s += " (content saved)"
	}
	return s
}

// path gives the path of a file of the image, "" when it has none.
func (r *inspector) path(id uint32) string {
	e := r.files[id]
	if e == nil {
		return ""
	}
	if e.GetType() == fdinfo.FdTypes_MEMFD {
		return "/memfd:" + r.memfds[e.GetMemfd().GetInodeId()].GetName()
	}
	return e.GetReg().GetName() + fate(r.extra[id])
}

// TCP states of include/net/tcp_states.h, which all inet sockets use.
var inetStates = [...]string{
	1: "established", "SYN sent", "SYN received", "FIN wait 1", "FIN wait 2", "time wait", "closed",
	"close wait", "last ACK", "listening", "closing",
}

const (
	tcpClose  = 7
	tcpListen = 10
)

// describeInet tells a TCP, UDP or raw socket's addresses and state.
func describeInet(out *InspectedFile, s *sk_inet.InetSkEntry) {
	switch {
	case s.GetProto() == unix.IPPROTO_TCP:
		out.Kind = "TCP socket"
	case s.GetProto() == unix.IPPROTO_UDP:
		out.Kind = "UDP socket"
	case s.GetType() == unix.SOCK_RAW:
		out.Kind = "raw socket"
	}
	state := int(s.GetState())
	var parts []string
	if s.GetSrcPort() != 0 || state == tcpListen {
		parts = append(parts, inetAddr(s.GetSrcAddr(), s.GetSrcPort()))
	}
	if state != tcpListen && s.GetDstPort() != 0 {
		parts = append(parts, "to "+inetAddr(s.GetDstAddr(), s.GetDstPort()))
	}
	if state > 0 && state < len(inetStates) && (state != tcpClose || len(parts) == 0) {
		parts = append(parts, inetStates[state])
	}
	out.What = strings.Join(parts, " ")
}

// inetAddr formats an address of the interchange schema: one word for IPv4,
// four for IPv6, each as it lies in memory, in network order.
func inetAddr(words []uint32, port uint32) string {
	var b [16]byte
	for i, w := range words {
		if i < 4 {
			binary.NativeEndian.PutUint32(b[4*i:], w)
		}
	}
	a := netip.AddrFrom16(b)
	if len(words) == 1 {
		a = netip.AddrFrom4([4]byte(b[:4]))
	}
	return netip.AddrPortFrom(a, uint16(port)).String()
}

// describeUnix tells a unix socket's type, name and peer.
func describeUnix(out *InspectedFile, s *sk_unix.UnixSkEntry) {
	switch s.GetType() {
	case unix.SOCK_STREAM:
		out.Kind = "unix stream socket"
	case unix.SOCK_DGRAM:
		out.Kind = "unix datagram socket"
	case unix.SOCK_SEQPACKET:
		out.Kind = "unix seqpacket socket"
	}
	parts := []string{fmt.Sprintf("socket %d", s.GetIno())}
	if n := string(s.GetName()); n != "" {
		if n[0] == 0 {
			n = "@" + n[1:] // abstract (unix(7))
		}
		parts = append(parts, strings.TrimRight(n, "\x00"))
	}
	if p := s.GetPeer(); p != 0 {
		parts = append(parts, fmt.Sprintf("to socket %d", p))
	}
	if st := s.GetState(); st == tcpListen {
		parts = append(parts, "listening")
	}
	out.What = strings.Join(parts, " ")
}

// savedFiles lists the contents that travel in the checkpoint, with the paths
// they had.
func (r *inspector) savedFiles(m *fm.Manifest) []InspectedContents {
	of := map[string]string{}
	for id, x := range r.extra {
		if n := x.GetSaved(); n != "" {
			of[n] = r.files[id].GetReg().GetName()
		}
	}
	var out []InspectedContents
	for _, s := range m.GetSaved() {
		out = append(out, InspectedContents{Name: s.GetName(), Of: of[s.GetName()], Size: int64(s.GetSize())})
	}
	return out
}
