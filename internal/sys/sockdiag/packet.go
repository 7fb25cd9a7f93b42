package sockdiag

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// include/uapi/linux/packet_diag.h (Linux 3.7).
const (
	packetShowInfo   = 1
	packetShowMclist = 2
	packetShowRings  = 4
	packetShowFanout = 8

	packetAttrInfo   = 0
	packetAttrMclist = 1
	packetAttrRxRing = 2
	packetAttrTxRing = 3
	packetAttrFanout = 4

	packetReqSize    = 20 // struct packet_diag_req
	packetMsgSize    = 16 // struct packet_diag_msg
	packetMclistSize = 44 // struct packet_diag_mclist
	packetRingSize   = 28 // struct packet_diag_ring
)

// Flags of Packet.
const (
	PacketRunning = 1 << iota
	PacketAuxData
	PacketOrigDev
	PacketVnetHdr
	PacketLoss
)

// Packet is what the monitor tells of a packet socket.
type Packet struct {
	Type   uint8  // SOCK_
	Num    uint16 // Ethernet protocol, host order
	Ino    uint32
	Index  uint32 // interface, 0 for all
	Flags  uint32 // Packet…
	Mclist []PacketMember
	// CopyThresh is PACKET_COPY_THRESH.
	CopyThresh     uint32
	RxRing, TxRing *PacketRing // nil when there is none
	Fanout         *uint32
}

// PacketRing is a ring of frames: struct tpacket_req, tpacket_req3
// (include/uapi/linux/if_packet.h).
type PacketRing struct {
	BlockSize, BlockNr, FrameSize, FrameNr uint32
	RetireTmo, SizeofPriv, Features        uint32 // of TPACKET_V3
}

// PacketMember is one PACKET_ADD_MEMBERSHIP.
type PacketMember struct {
	Index, Count uint32
	Type         uint16
	Addr         []byte
}

// ListPacket gives every packet socket.
func ListPacket() ([]Packet, error) {
	b := make([]byte, packetReqSize)
	b[0] = unix.AF_PACKET
	native.PutUint32(b[8:], packetShowInfo|packetShowMclist|packetShowRings|packetShowFanout)
	native.PutUint64(b[12:], ^uint64(0)) // no cookie
	return list(b, ParsePacket)
}

// ParsePacket parses a struct packet_diag_msg and its attributes.
func ParsePacket(b []byte) (Packet, error) {
	if len(b) < packetMsgSize || b[0] != unix.AF_PACKET {
		return Packet{}, fmt.Errorf("sock_diag: packet message of %d bytes", len(b))
	}
	p := Packet{Type: b[1], Num: native.Uint16(b[2:]), Ino: native.Uint32(b[4:])}
	bad := false
	err := attrs(b[packetMsgSize:], func(typ uint16, v []byte) {
		switch typ {
		case packetAttrInfo:
			if len(v) < 24 {
				bad = true
				return
			}
			p.Index, p.CopyThresh, p.Flags = native.Uint32(v), native.Uint32(v[12:]), native.Uint32(v[20:])
		case packetAttrMclist:
			for ; len(v) >= packetMclistSize; v = v[packetMclistSize:] {
				n := min(int(native.Uint16(v[10:])), 32)
				p.Mclist = append(p.Mclist, PacketMember{
					Index: native.Uint32(v), Count: native.Uint32(v[4:]), Type: native.Uint16(v[8:]),
					Addr: append([]byte{}, v[12:12+n]...),
				})
			}
		case packetAttrRxRing:
			p.RxRing, bad = packetRing(v), bad || len(v) < packetRingSize
		case packetAttrTxRing:
			p.TxRing, bad = packetRing(v), bad || len(v) < packetRingSize
		case packetAttrFanout:
			if len(v) < 4 {
				bad = true
				return
			}
			f := native.Uint32(v)
			p.Fanout = &f
		}
	})
	if bad {
		err = errors.New("sock_diag: short attribute")
	}
	return p, err
}

// packetRing parses a struct packet_diag_ring; nil when it is too short.
func packetRing(v []byte) *PacketRing {
	if len(v) < packetRingSize {
		return nil
	}
	u := func(i int) uint32 { return native.Uint32(v[4*i:]) }
	return &PacketRing{BlockSize: u(0), BlockNr: u(1), FrameSize: u(2), FrameNr: u(3), RetireTmo: u(4), SizeofPriv: u(5), Features: u(6)}
}
