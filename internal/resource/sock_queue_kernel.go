package resource

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/sys/kmem"
)

// Datagrams that wait. A peek (MSG_PEEK) shows the first; to see those behind it
// the place to peek from must be changed (SO_PEEK_OFF), and a program that peeks
// would be shown another message, should this process die before it is set back.
// So queues are read from the kernel's memory (package kmem) where that is allowed.
// Senders outside the tree go on meanwhile: a queue that has changed is read again.

// viewQueue reads a queue by a function until it has not changed meanwhile.
func viewQueue(d *Dump, read func(k *kmem.Reader) ([]*sockMessage, error)) ([]*sockMessage, error) {
	k, err := d.Kernel()
	if err != nil {
		return nil, err
	}
	for range tcpTries {
		faultpoint.At("queue.look")
		var all []*sockMessage
		all, err = read(k)
		if err = errors.Join(err, k.Err()); err == nil || !errors.Is(err, kmem.ErrChanged) {
			return all, err
		}
	}
	return nil, err
}

// viewDatagrams reads the datagrams that wait in a UDP socket (struct udp_sock,
// include/linux/udp.h; struct udp_skb_cb, include/net/udp.h).
func (s *inetSock) viewDatagrams(d *Dump, fd int) ([]*sockMessage, error) {
	level, name := unix.IPPROTO_IP, unix.IP_PKTINFO
	if s.sock.domain == unix.AF_INET6 {
		level, name = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	info, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		return nil, fmt.Errorf("IP_PKTINFO: %w", err)
	}
	return viewQueue(d, func(k *kmem.Reader) (all []*sockMessage, err error) {
		u := k.Socket(fd).As("udp_sock")
		queue := u.In("reader_queue", "sk_buff_head").Buffers()
		queue = append(queue, u.As("sock").In("sk_receive_queue", "sk_buff_head").Buffers()...)
		for _, b := range queue {
			b = b.Read()
			data, addr, to := b.Data(), s.packetAddr(b, false), []byte(nil)
			if info != 0 {
				to = s.packetAddr(b, true)
			}
			size := max(1, len(data))
			if n := k.At("skb_shared_info", b.Uint("head")+b.Uint("end")).Uint("gso_size"); n > 0 {
				size = int(n) // several, joined
			}
			for first := true; first || len(data) > 0; first = false {
				n := min(len(data), size)
				all = append(all, &sockMessage{data: data[:n:n], addr: addr, to: to})
				data = data[n:]
			}
		}
		return all, nil
	})
}

// viewCorked reads a datagram that is being put together, and where it is to go
// (struct udp_sock, struct inet_cork); nil when there is none. Each piece begins
// with room for its headers (net/ipv4/ip_output.c, net/ipv6/ip6_output.c).
func (s *inetSock) viewCorked(d *Dump, fd int) (data []byte, to endpoint, err error) {
	k, err := d.Kernel()
	if err != nil {
		return nil, to, err
	}
	const udpHeader = 8
	u := k.Socket(fd).As("udp_sock")
	family := u.Uint("pending")
	if family == 0 {
		return nil, to, k.Err()
	}
	flow := u.As("inet_sock").In("cork.fl", "flowi")
	if family == unix.AF_INET6 {
		f := flow.As("flowi6")
		to = endpoint{addr: endpointAddr(f.Bytes("daddr", 16)), port: binary.BigEndian.Uint16(f.Bytes("uli.ports.dport", 2))}
		if to.addr.IsLinkLocalUnicast() || to.addr.IsLinkLocalMulticast() {
			to.scope = uint32(f.Uint("__fl_common.flowic_oif"))
		}
	} else {
		f := flow.As("flowi4")
		to = endpoint{addr: endpointAddr(f.Bytes("daddr", 4)), port: binary.BigEndian.Uint16(f.Bytes("uli.ports.dport", 2))}
	}
	data = []byte{}
	for i, b := range u.As("sock").In("sk_write_queue", "sk_buff_head").Buffers() {
		b = b.Read()
		all, skip := b.Data(), int(b.Uint("head")+b.Uint("transport_header")-b.Uint("data"))
		if i == 0 {
			skip += udpHeader
		}
		if skip < 0 || skip > len(all) {
			k.Fail(kmem.ErrChanged)
			break
		}
		data = append(data, all[skip:]...)
	}
	if n := int(u.Uint("len")) - udpHeader; k.Err() == nil && n != len(data) {
		return nil, to, fmt.Errorf("%d bytes are there of %d", len(data), n)
	}
	return data, to, k.Err()
}

// packetAddr reads a packet's sender, or where it was sent to, from its headers.
func (s *inetSock) packetAddr(b kmem.Object, to bool) []byte {
	const etherIPv6 = 0x86dd // ETH_P_IPV6
	head := b.Uint("head")
	network, transport := head+b.Uint("network_header"), head+b.Uint("transport_header")
	var p endpoint
	ip, at, size := "iphdr", "saddr", 4
	six := binary.BigEndian.Uint16(b.Bytes("protocol", 2)) == etherIPv6
	if six {
		ip, size = "ipv6hdr", 16
	}
	if to {
		at, p.port = "daddr", s.src.port
	} else {
		p.port = binary.BigEndian.Uint16(b.Elsewhere("udphdr", transport).Bytes("source", 2))
	}
	p.addr = endpointAddr(b.Elsewhere(ip, network).Bytes(at, size))
	if to || six && (p.addr.IsLinkLocalUnicast() || p.addr.IsInterfaceLocalMulticast() || p.addr.IsLinkLocalMulticast()) {
		p.scope = uint32(b.In("cb", "udp_skb_cb").Uint("header.h6.iif")) // which h4.iif is, too
	}
	return p.sockaddr(s.sock.domain)
}

// viewDatagrams reads the messages that wait in a unix socket that keeps them
// apart (struct unix_skb_parms, include/net/af_unix.h). Descriptors in them can
// only be had by a peek: with such a message the error is kmem.ErrUnavailable.
func (s *unixSock) viewDatagrams(d *Dump, fd int) ([]*sockMessage, error) {
	cred, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED)
	if err != nil {
		return nil, fmt.Errorf("SO_PASSCRED: %w", err)
	}
	return viewQueue(d, func(k *kmem.Reader) (all []*sockMessage, err error) {
		for _, b := range k.Socket(fd).In("sk_receive_queue", "sk_buff_head").Buffers() {
			b = b.Read()
			cb := b.In("cb", "unix_skb_parms")
			if !cb.Ptr("fp", "scm_fp_list").Nil() {
				return nil, fmt.Errorf("%w: descriptors", kmem.ErrUnavailable)
			}
			m := &sockMessage{data: b.Data()}
			if name := b.Ptr("sk", "unix_sock").Ptr("addr", "unix_address"); !name.Nil() {
				m.addr = name.Bytes("name", min(int(name.Uint("len")), unix.SizeofSockaddrUnix))
			}
			if p := cb.Ptr("pid", "pid"); cred != 0 && !p.Nil() {
				if pid := k.PID(p); pid != 0 {
					m.cred = &unix.Ucred{Pid: int32(pid), Uid: uint32(cb.Uint("uid.val")), Gid: uint32(cb.Uint("gid.val"))}
				}
			}
			all = append(all, m)
		}
		return all, nil
	})
}
