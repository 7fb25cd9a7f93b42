package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	sk_netlink "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-netlink"
	sk_opts "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-opts"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Netlink sockets (netlink(7)): a protocol, the socket's own port id, the groups
// it listens to, and where it sends by default. Messages that wait were written
// by the kernel and can be written by nobody else: such a socket is refused, and
// so is one to which netfilter hands packets.
type netlinkSocket struct{}

func init() { Register(netlinkSocket{}) }

func (netlinkSocket) Name() string            { return "netlink socket" }
func (netlinkSocket) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_NETLINKSK} }
func (netlinkSocket) Match(f *File) bool      { return matchFamily(f, unix.AF_NETLINK) }

// netlinkAddr is the port id and mask of groups of a struct sockaddr_nl
// (include/uapi/linux/netlink.h).
func netlinkAddr(sa []byte) (port, groups uint32) {
	if len(sa) < 12 {
		return 0, 0
	}
	return nativeUint32(sa[4:]), nativeUint32(sa[8:])
}

func sockaddrNetlink(port, groups uint32) []byte {
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_NETLINK)
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(append(b, 0, 0), port), groups)
}

func (netlinkSocket) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	s := sockOf(f)
	fd, done, err := f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	if foreign, err := foreignNet(d, f, fd); foreign || err != nil {
		return nil, err
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	sa, err := sys.Sockname(fd)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	to, err := sys.Peername(fd)
	if err != nil {
		return nil, fmt.Errorf("address of the peer: %w", err)
	}
	port, _ := netlinkAddr(sa)
	toPort, toGroups := netlinkAddr(to)
	ne := &sk_netlink.NetlinkSkEntry{
		Id: proto.Uint32(f.ID), Ino: proto.Uint32(uint32(f.Stat.Ino)), Protocol: proto.Uint32(uint32(s.proto)),
		State: proto.Uint32(stateClose), Flags: proto.Uint32(f.Flags()), Portid: proto.Uint32(port),
		DstPortid: proto.Uint32(toPort), DstGroup: proto.Uint32(toGroups), Fown: o, Opts: &sk_opts.SkOptsEntry{},
	}
	if toPort != 0 || toGroups != 0 {
		ne.State = proto.Uint32(stateEstablished)
	}
	if ne.Groups, err = memberships(fd); err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	if p[0].Revents&unix.POLLERR != 0 {
		d.sockExtra(f).Error = proto.Bool(true)
	}
	if p[0].Revents&unix.POLLIN != 0 {
		d.NotNow(f, "messages of the kernel wait in a netlink socket", "let the program read them, and try again")
		return nil, nil
	}
	if s.proto == unix.NETLINK_NETFILTER && netfilterPort(port) {
		d.Refusal(f, "netfilter hands packets to it (NFQUEUE or NFLOG)", "close it before the checkpoint")
		return nil, nil
	}
	sockCommon(d, f)
	d.sockExtra(f).Data = proto.Uint32(uint32(s.typ))
	if err := collectOpts(d, f, fd, s, sockState{}, &optFields{opts: ne.Opts}); err != nil {
		return nil, err
	}
	e := entryOf(fdinfo.FdTypes_NETLINKSK)
	e.Nlsk = ne
	return e, nil
}

// memberships reads the bits of the groups a socket listens to
// (NETLINK_LIST_MEMBERSHIPS, Linux 4.2).
func memberships(fd int) ([]uint32, error) {
	n, err := sys.Getsockopt(fd, unix.SOL_NETLINK, unix.NETLINK_LIST_MEMBERSHIPS, nil)
	if err != nil || n == 0 {
		return nil, err
	}
	b := make([]byte, (n+3)&^3)
	if _, err = sys.Getsockopt(fd, unix.SOL_NETLINK, unix.NETLINK_LIST_MEMBERSHIPS, b); err != nil {
		return nil, err
	}
	var w []uint32
	for ; len(b) > 0; b = b[4:] {
		w = append(w, nativeUint32(b))
	}
	return w, nil
}

// netfilterPort tells whether netfilter knows a port id: the second column of
// nfnetlink_queue, the second of nfnetlink_log.
func netfilterPort(port uint32) bool {
	want := strconv.FormatUint(uint64(port), 10)
	for _, name := range []string{"nfnetlink_queue", "nfnetlink_log"} {
		b, err := os.ReadFile("/proc/net/netfilter/" + name)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			if w := strings.Fields(line); len(w) > 1 && w[1] == want {
				return true
			}
		}
	}
	return false
}

func (netlinkSocket) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	n := e.GetNlsk()
	im, err := r.socks()
	if err != nil || n == nil {
		return -1, errors.Join(err, fault.Errorf(fault.ErrDamaged, "no netlink_sk_entry"))
	}
	x := im.of(e.GetId())
	typ := int(x.GetData())
	if typ == 0 {
		typ = unix.SOCK_RAW
	}
	fd, err := unix.Socket(unix.AF_NETLINK, typ|unix.SOCK_CLOEXEC, int(n.GetProtocol()))
	if err != nil {
		return -1, fmt.Errorf("netlink socket of protocol %d: %w", n.GetProtocol(), err)
	}
	return finish(fd, openNetlink(r, e.GetId(), fd, n, &optFields{opts: n.GetOpts()}))
}

func openNetlink(r *Restore, id uint32, fd int, n *sk_netlink.NetlinkSkEntry, f *optFields) error {
	what := fmt.Sprintf("netlink socket of protocol %d, port %d", n.GetProtocol(), n.GetPortid())
	im, err := r.socks()
	if err != nil {
		return err
	}
	x := im.of(id)
	restoreOpts(r, what, fd, true, f, x)
	if p := n.GetPortid(); p != 0 {
		err := sys.Bind(fd, sockaddrNetlink(p, 0))
		if errors.Is(err, unix.EADDRINUSE) {
			r.Note("%s: another socket has its port, it gets a new one", what)
			err = sys.Bind(fd, sockaddrNetlink(0, 0))
		}
		if err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	for i, w := range n.GetGroups() {
		for bit := range 32 {
			if w&(1<<bit) == 0 {
				continue
			}
			group := 32*i + bit + 1
			if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
				return fmt.Errorf("joining group %d: %w", group, err)
			}
		}
	}
	if n.GetState() == stateEstablished {
		if err := sys.Connect(fd, sockaddrNetlink(n.GetDstPortid(), n.GetDstGroup())); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	if x.GetError() {
		r.Note("%s: an error that waited to be told is lost", what)
	}
	restoreOpts(r, what, fd, false, f, x)
	if err := restoreCommon(r, id, fd); err != nil {
		return err
	}
	return setStatus(fd, n.GetFlags())
}
