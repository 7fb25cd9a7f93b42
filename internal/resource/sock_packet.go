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
// multicast memberships, fanout, rings of frames. Packets that wait are not kept,
// the restore says so. A ring begins anew at its first frame, which who has mapped
// it does not expect: such areas are refused (mapped.go).
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
		if err == unix.EOPNOTSUPP && s.typ == unix.SOCK_PACKET {
			v, err = 0, nil // it has no options of this level
		}
		if err != nil {
			return nil, fmt.Errorf("packet option %d: %w", x.name, err)
		}
		if x.to != nil {
			*x.to = proto.Uint32(uint32(v))
		} else {
			*x.flag = proto.Bool(v != 0)
		}
	}
	pe.CopyThresh = proto.Uint32(g.CopyThresh) // which getsockopt does not tell
	pe.RxRing, pe.TxRing = packetRing(g.RxRing), packetRing(g.TxRing)
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
	// Without a protocol it receives nothing yet. One of the obsolete type has the
	// protocol from its beginning.
	proto := 0
	if p.GetType() == unix.SOCK_PACKET {
		n := uint16(p.GetProtocol())
		proto = int(n>>8 | n<<8)
	}
	fd, err := unix.Socket(unix.AF_PACKET, int(p.GetType())|unix.SOCK_CLOEXEC, proto)
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
		{unix.PACKET_VNET_HDR, bit(p.GetVnetHdr())}, {unix.PACKET_LOSS, bit(p.GetLoss())}, {unix.PACKET_COPY_THRESH, p.GetCopyThresh()},
	} {
		if o.v == 0 && (o.name == unix.PACKET_COPY_THRESH || p.GetType() == unix.SOCK_PACKET) {
			continue
		}
		if have, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, o.name); err == nil && uint32(have) == o.v {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.name, int(o.v)); err != nil {
			return fmt.Errorf("packet option %d: %w", o.name, err)
		}
	}
	for _, q := range []struct {
		name int
		ring *packet_sock.PacketRing
	}{{unix.PACKET_RX_RING, p.GetRxRing()}, {unix.PACKET_TX_RING, p.GetTxRing()}} {
		if q.ring == nil {
			continue
		}
		if err := setPacketRing(fd, q.name, p.GetVersion(), q.ring); err != nil {
			return err
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
	switch {
	case p.GetType() == unix.SOCK_PACKET:
		if index != 0 {
			i, err := net.InterfaceByIndex(index)
			if err != nil {
				return fmt.Errorf("interface %d: %w", index, err)
			}
			sa := make([]byte, 16) // struct sockaddr, in which the name must fit
			binary.NativeEndian.PutUint16(sa, unix.AF_PACKET)
			copy(sa[2:], i.Name)
			if err := sys.Bind(fd, sa); err != nil {
				return fmt.Errorf("bind to interface %s: %w", i.Name, err)
			}
		}
	case p.GetProtocol() != 0 || index != 0:
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

func packetRing(g *sockdiag.PacketRing) *packet_sock.PacketRing {
	if g == nil {
		return nil
	}
	return &packet_sock.PacketRing{
		BlockSize: proto.Uint32(g.BlockSize), BlockNr: proto.Uint32(g.BlockNr), FrameSize: proto.Uint32(g.FrameSize), FrameNr: proto.Uint32(g.FrameNr),
		RetireTmo: proto.Uint32(g.RetireTmo), SizeofPriv: proto.Uint32(g.SizeofPriv), Features: proto.Uint32(g.Features),
	}
}

// setPacketRing makes a ring: struct tpacket_req, or of the third version
// tpacket_req3 (include/uapi/linux/if_packet.h).
func setPacketRing(fd, name int, version uint32, g *packet_sock.PacketRing) error {
	v := []uint32{g.GetBlockSize(), g.GetBlockNr(), g.GetFrameSize(), g.GetFrameNr()}
	if version == unix.TPACKET_V3 {
		v = append(v, g.GetRetireTmo(), g.GetSizeofPriv(), g.GetFeatures())
	}
	var b []byte
	for _, x := range v {
		b = binary.NativeEndian.AppendUint32(b, x)
	}
	if err := sys.Setsockopt(fd, unix.SOL_PACKET, name, b); err != nil {
		return fmt.Errorf("a ring of %d blocks of %d bytes: %w", g.GetBlockNr(), g.GetBlockSize(), err)
	}
	return nil
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
