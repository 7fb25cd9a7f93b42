package resource

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	packet_sock "github.com/checkpoint-restore/go-criu/v8/crit/images/packet-sock"
	sk_opts "github.com/checkpoint-restore/go-criu/v8/crit/images/sk-opts"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

// Packet sockets (packet(7)): the protocol and interface they listen to, options,
// multicast memberships, fanout. Packets that wait are not kept, the restore says
// so; sockets with a ring in memory are refused.
type packetSocket struct{}

func init() { Register(packetSocket{}) }

func (packetSocket) Name() string            { return "packet socket" }
func (packetSocket) Types() []fdinfo.FdTypes { return []fdinfo.FdTypes{fdinfo.FdTypes_PACKETSK} }
func (packetSocket) Match(f *File) bool      { return matchFamily(f, unix.AF_PACKET) }

type packetDiagKey struct{}

func (packetSocket) Collect(d *Dump, f *File) (*fdinfo.FileEntry, error) {
	s := sockOf(f)
	fd, done, err := f.borrow()
	if err != nil {
		return nil, err
	}
	defer done()
	if foreign, err := foreignNet(d, f, fd); foreign || err != nil {
		return nil, err
	}
	all, err := Value(d, packetDiagKey{}, sockdiag.ListPacket)
	if err != nil {
		return nil, err
	}
	var g *sockdiag.Packet
	for i := range all {
		if all[i].Ino == uint32(f.Stat.Ino) {
			g = &all[i]
		}
	}
	switch {
	case g == nil:
		return nil, fmt.Errorf("the kernel's socket monitor does not show it")
	case g.RxRing || g.TxRing:
		d.Refusal(f, "a packet socket with a ring in shared memory (PACKET_MMAP)", "close it before the checkpoint")
		return nil, nil
	case s.typ != unix.SOCK_RAW && s.typ != unix.SOCK_DGRAM:
		d.Refusal(f, "a packet socket of an obsolete type (SOCK_PACKET)", "close it before the checkpoint")
		return nil, nil
	}
	o, err := d.Fown(f)
	if err != nil {
		return nil, err
	}
	pe := &packet_sock.PacketSockEntry{
		Id: proto.Uint32(f.ID), Type: proto.Uint32(uint32(s.typ)), Protocol: proto.Uint32(uint32(g.Num)),
		Flags: proto.Uint32(f.Flags()), Ifindex: proto.Uint32(g.Index), Fown: o, Opts: &sk_opts.SkOptsEntry{}, Fanout: g.Fanout,
	}
	for _, x := range []struct {
		name int
		to   **uint32
		flag **bool
	}{
		{name: unix.PACKET_VERSION, to: &pe.Version}, {name: unix.PACKET_RESERVE, to: &pe.Reserve},
		{name: unix.PACKET_TIMESTAMP, to: &pe.Timestamp}, {name: unix.PACKET_AUXDATA, flag: &pe.AuxData},
		{name: unix.PACKET_ORIGDEV, flag: &pe.OrigDev}, {name: unix.PACKET_VNET_HDR, flag: &pe.VnetHdr},
		{name: unix.PACKET_LOSS, flag: &pe.Loss},
	} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, x.name)
		if err != nil {
			return nil, fmt.Errorf("packet option %d: %w", x.name, err)
		}
		if x.to != nil {
			*x.to = proto.Uint32(uint32(v))
		} else {
			*x.flag = proto.Bool(v != 0)
		}
	}
	pe.CopyThresh = proto.Uint32(0) // of use with a ring only
	for _, m := range g.Mclist {
		pe.Mclist = append(pe.Mclist, &packet_sock.PacketMclist{Index: proto.Uint32(m.Index), Type: proto.Uint32(uint32(m.Type)), Addr: m.Addr})
	}
	x := d.sockExtra(f)
	if g.Index != 0 {
		i, err := net.InterfaceByIndex(int(g.Index))
		if err != nil {
			return nil, fmt.Errorf("interface %d: %w", g.Index, err)
		}
		x.Name = []byte(i.Name)
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if _, err := unix.Poll(p, 0); err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	if p[0].Revents&unix.POLLIN != 0 {
		x.Lost = proto.Bool(true)
	}
	sockCommon(d, f)
	if err := collectOpts(d, f, fd, s, sockState{}, &optFields{opts: pe.Opts}); err != nil {
		return nil, err
	}
	e := entryOf(fdinfo.FdTypes_PACKETSK)
	e.Psk = pe
	return e, nil
}

func (packetSocket) Open(r *Restore, e *fdinfo.FileEntry) (int, error) {
	p := e.GetPsk()
	if p == nil {
		return -1, fault.Errorf(fault.ErrDamaged, "no packet_sock_entry")
	}
	// Without a protocol it receives nothing yet.
	fd, err := unix.Socket(unix.AF_PACKET, int(p.GetType())|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	return finish(fd, openPacket(r, e.GetId(), fd, p))
}

func openPacket(r *Restore, id uint32, fd int, p *packet_sock.PacketSockEntry) error {
	im, err := r.socks()
	if err != nil {
		return err
	}
	x := im.of(id)
	index := int(p.GetIfindex())
	if n := string(x.GetName()); n != "" {
		i, err := net.InterfaceByName(n)
		if err != nil {
			return fault.Errorf(fault.ErrRefused, "the network interface %s is missing", n)
		}
		index = i.Index
	}
	what := fmt.Sprintf("packet socket of protocol %#x", p.GetProtocol())
	for _, o := range []struct {
		name int
		v    uint32
	}{
		{unix.PACKET_VERSION, p.GetVersion()}, {unix.PACKET_RESERVE, p.GetReserve()}, {unix.PACKET_TIMESTAMP, p.GetTimestamp()},
		{unix.PACKET_AUXDATA, bit(p.GetAuxData())}, {unix.PACKET_ORIGDEV, bit(p.GetOrigDev())},
		{unix.PACKET_VNET_HDR, bit(p.GetVnetHdr())}, {unix.PACKET_LOSS, bit(p.GetLoss())},
	} {
		if have, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, o.name); err == nil && uint32(have) == o.v {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.name, int(o.v)); err != nil {
			return fmt.Errorf("packet option %d: %w", o.name, err)
		}
	}
	restoreOpts(r, what, fd, true, &optFields{opts: p.GetOpts()}, x)
	for _, m := range p.GetMclist() {
		b := binary.NativeEndian.AppendUint32(nil, m.GetIndex()) // struct packet_mreq
		b = binary.NativeEndian.AppendUint16(b, uint16(m.GetType()))
		b = binary.NativeEndian.AppendUint16(b, uint16(len(m.GetAddr())))
		b = append(b, make([]byte, 8)...)
		copy(b[8:], m.GetAddr())
		if err := sys.Setsockopt(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, b); err != nil {
			return fmt.Errorf("membership of type %d: %w", m.GetType(), err)
		}
	}
	restoreOpts(r, what, fd, false, &optFields{opts: p.GetOpts()}, x)
	if p.GetProtocol() != 0 || index != 0 {
		sa := binary.NativeEndian.AppendUint16(nil, unix.AF_PACKET)
		sa = binary.BigEndian.AppendUint16(sa, uint16(p.GetProtocol()))
		sa = binary.NativeEndian.AppendUint32(sa, uint32(index))
		if err := sys.Bind(fd, append(sa, make([]byte, 12)...)); err != nil {
			return fmt.Errorf("bind to interface %d: %w", index, err)
		}
	}
	if p.Fanout != nil && p.GetFanout() != ^uint32(0) {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, int(int32(p.GetFanout()))); err != nil {
			return fmt.Errorf("PACKET_FANOUT: %w", err)
		}
	}
	if x.GetLost() {
		r.Note("%s: packets that had arrived and were not read are lost", what)
	}
	if err := restoreCommon(r, id, fd); err != nil {
		return err
	}
	return setStatus(fd, p.GetFlags())
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
