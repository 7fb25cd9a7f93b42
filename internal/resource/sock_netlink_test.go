package resource

import (
	"bytes"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/sys/sockdiag"
)

func init() {
	fileChildren["netlink"] = func() {
		nl := func(n, proto int) {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM, proto)
			as(n, fd, err)
		}
		nl(10, unix.NETLINK_ROUTE)
		must(unix.Bind(10, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: 4000000 + uint32(os.Getpid())}))
		must(unix.SetsockoptInt(10, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_LINK))
		must(unix.SetsockoptInt(10, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, 35)) // beyond the mask
		must(unix.SetsockoptInt(10, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1))
		nl(11, unix.NETLINK_USERSOCK)
		must(unix.Connect(11, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: 77}))
	}
	fileChildren["netlink-queue"] = func() {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM, unix.NETLINK_ROUTE)
		as(10, fd, err)
		// struct nlmsghdr, struct rtgenmsg: a dump of all links.
		req := []byte{20, 0, 0, 0, unix.RTM_GETLINK, 0, 1, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		must(unix.Sendto(10, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
		fd, err = unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
		if err != nil { // not in this kernel
			fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
		}
		as(11, fd, err)
	}
}

func TestNetlink(t *testing.T) {
	var port uint32
	socketCase(t, "netlink", func(t *testing.T, fd func(int) int) {
		sa := must1(sys.Sockname(fd(10)))
		p, groups := netlinkAddr(sa)
		if port == 0 {
			port = p
		}
		if p != port || p < 4000000 || groups != 1<<(unix.RTNLGRP_LINK-1) {
			t.Errorf("port %d, groups %#x; port was %d", p, groups, port)
		}
		if w, err := memberships(fd(10)); err != nil || len(w) < 2 || w[0] != 1 || w[1] != 4 {
			t.Errorf("groups %#x %v", w, err)
		}
		if v, err := unix.GetsockoptInt(fd(10), unix.SOL_NETLINK, unix.NETLINK_EXT_ACK); err != nil || v != 1 {
			t.Errorf("NETLINK_EXT_ACK %d %v", v, err)
		}
		if p, _ := netlinkAddr(must1(sys.Peername(fd(11)))); p != 77 {
			t.Errorf("peer %d", p)
		}
		if typ, err := unix.GetsockoptInt(fd(11), unix.SOL_SOCKET, unix.SO_TYPE); err != nil || typ != unix.SOCK_DGRAM {
			t.Errorf("type %d %v", typ, err)
		}
	})
}

func TestSocketsRefused(t *testing.T) {
	c := startChild(t, "netlink-queue")
	c.collect()
	reasons(t, c.refuse, "messages of the kernel wait", "no way is known to save a socket of this family")
}

func init() {
	fileChildren["packet"] = func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		as(10, fd, err)
		must(unix.SetsockoptInt(10, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1))
		must(unix.Bind(10, &unix.SockaddrLinklayer{Protocol: 0xb588, Ifindex: 1}))
		must(unix.SetsockoptPacketMreq(10, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: 1, Type: unix.PACKET_MR_PROMISC}))
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_EGP)
		as(11, fd, err)
		must(unix.Connect(11, loop4(0)))
		must(unix.SetsockoptInt(11, unix.IPPROTO_IP, unix.IP_HDRINCL, 1))
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
		as(12, fd, err)
		must(unix.SetsockoptString(12, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, string(bytes.Repeat([]byte{0xfe}, 32))))
	}
}

func TestPacketAndRaw(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs CAP_NET_RAW")
	}
	socketCase(t, "packet", func(t *testing.T, fd func(int) int) {
		sa, err := unix.Getsockname(fd(10))
		ll, ok := sa.(*unix.SockaddrLinklayer)
		if err != nil || !ok || ll.Protocol != 0xb588 || ll.Ifindex != 1 {
			t.Errorf("%+v %v", sa, err)
		}
		if v, err := unix.GetsockoptInt(fd(10), unix.SOL_PACKET, unix.PACKET_AUXDATA); err != nil || v != 1 {
			t.Errorf("PACKET_AUXDATA %d %v", v, err)
		}
		all, err := sockdiag.ListPacket()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, g := range all {
			if g.Ino == uint32(inode(t, fd(10))) {
				found = len(g.Mclist) == 1 && g.Mclist[0].Type == unix.PACKET_MR_PROMISC
			}
		}
		if !found {
			t.Errorf("membership: %+v", all)
		}
		peers := map[uint64]endpoint{}
		parseRawPeers(string(must1(os.ReadFile("/proc/self/net/raw"))), peers)
		if p := peers[inode(t, fd(11))]; p.addr != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("raw: connected to %v", p)
		}
		if v, err := unix.GetsockoptInt(fd(11), unix.IPPROTO_IP, unix.IP_HDRINCL); err != nil || v != 1 {
			t.Errorf("IP_HDRINCL %d %v", v, err)
		}
		b := make([]byte, 32)
		if _, err := sys.Getsockopt(fd(12), unix.SOL_ICMPV6, unix.ICMPV6_FILTER, b); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{0xfe}, 32)) {
			t.Errorf("ICMPV6_FILTER %x %v", b, err)
		}
	})
}
