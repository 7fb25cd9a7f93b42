// Package netlock keeps packets from TCP connections whose program is away:
// between its end and its restore the host would answer its peers that there is
// no such connection.
//
// A lock is a table of nf_tables (Linux 3.13, family inet 3.14) in the network
// namespace of the calling thread, with two chains that drop what arrives for
// the connections and what they send. It outlives its maker. One message makes or
// removes it, so there is never half of one. It needs CAP_NET_ADMIN.
package netlock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Conn is a connection: its end on this host, and its peer's.
type Conn struct{ Local, Remote End }

// End is an address, of 4 or 16 bytes, and a port. (net/netip would be a lot to
// initialize for the guardian, which begins before everything else.)
type End struct {
	IP   []byte
	Port uint16
}

// Mark is what packets must carry (SO_MARK) that are to pass a lock.
const Mark = 0xfe24a7a

// prefix begins the names of all locks.
const prefix = "fermata-"

// nfDrop is NF_DROP (include/uapi/linux/netfilter.h).
const nfDrop = 0

// ErrUnsupported: this kernel has no nf_tables.
var ErrUnsupported = errors.New("no packet filter (nf_tables) in this kernel")

// NewName gives a name for a lock that no other has.
func NewName() string {
	var b [8]byte
	_, _ = unix.Getrandom(b[:], 0) // never fails for so few
	return prefix + fmt.Sprintf("%x", b)
}

// Lock makes a lock called name (NewName) for the connections. The addresses of
// each must be of one family, IPv4 not mapped into IPv6.
func Lock(name string, conns []Conn) error {
	m := batch{}
	table := attrString(1, name) // NFTA_TABLE_NAME
	m.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, table)
	hooks := []struct {
		chain string
		hook  uint32
	}{{"in", unix.NF_INET_LOCAL_IN}, {"out", unix.NF_INET_LOCAL_OUT}}
	for _, h := range hooks {
		m.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE,
			attrString(unix.NFTA_CHAIN_TABLE, name), attrString(unix.NFTA_CHAIN_NAME, h.chain),
			nest(unix.NFTA_CHAIN_HOOK, attr32(unix.NFTA_HOOK_HOOKNUM, h.hook), attr32(unix.NFTA_HOOK_PRIORITY, priority)),
			attrString(unix.NFTA_CHAIN_TYPE, "filter"))
	}
	for _, c := range conns {
		for _, r := range []struct {
			chain    string
			src, dst End
		}{{"in", c.Remote, c.Local}, {"out", c.Local, c.Remote}} {
			m.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
				attrString(unix.NFTA_RULE_TABLE, name), attrString(unix.NFTA_RULE_CHAIN, r.chain),
				nest(unix.NFTA_RULE_EXPRESSIONS, drop(r.src, r.dst)...))
		}
	}
	if err := m.send(); err != nil {
		return fmt.Errorf("locking %d connections: %w", len(conns), err)
	}
	return nil
}

// Unlock removes a lock; one that is not there is no error.
func Unlock(name string) error {
	if !strings.HasPrefix(name, prefix) {
		return fmt.Errorf("%q is no lock of connections", name)
	}
	m := batch{}
	m.add(unix.NFT_MSG_DELTABLE, 0, attrString(1, name))
	if err := m.send(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unlocking connections: %w", err)
	}
	return nil
}

// priority is that of the chains: NF_IP_PRI_RAW (include/uapi/linux/netfilter_ipv4.h),
// before packets are noted by connection tracking.
const priority = ^uint32(300 - 1)

// drop gives the expressions of a rule: a packet of TCP from src to dst that does
// not carry the mark is dropped (include/uapi/linux/netfilter/nf_tables.h).
func drop(src, dst End) (out [][]byte) {
	family, at, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if len(src.IP) == 16 {
		family, at, size = unix.NFPROTO_IPV6, 8, 16
	}
	meta := func(key uint32) {
		out = append(out, expr("meta", attr32(unix.NFTA_META_KEY, key), attr32(unix.NFTA_META_DREG, unix.NFT_REG_1)))
	}
	load := func(base, at, size uint32) {
		out = append(out, expr("payload", attr32(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1),
			attr32(unix.NFTA_PAYLOAD_BASE, base), attr32(unix.NFTA_PAYLOAD_OFFSET, at), attr32(unix.NFTA_PAYLOAD_LEN, size)))
	}
	compare := func(op uint32, v []byte) {
		out = append(out, expr("cmp", attr32(unix.NFTA_CMP_SREG, unix.NFT_REG_1), attr32(unix.NFTA_CMP_OP, op),
			nest(unix.NFTA_CMP_DATA, attr(unix.NFTA_DATA_VALUE, v))))
	}
	port := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	meta(unix.NFT_META_NFPROTO)
	compare(unix.NFT_CMP_EQ, []byte{family})
	load(unix.NFT_PAYLOAD_NETWORK_HEADER, at, size)
	compare(unix.NFT_CMP_EQ, src.IP)
	load(unix.NFT_PAYLOAD_NETWORK_HEADER, at+size, size)
	compare(unix.NFT_CMP_EQ, dst.IP)
	meta(unix.NFT_META_L4PROTO)
	compare(unix.NFT_CMP_EQ, []byte{unix.IPPROTO_TCP})
	load(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2)
	compare(unix.NFT_CMP_EQ, port(src.Port))
	load(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)
	compare(unix.NFT_CMP_EQ, port(dst.Port))
	meta(unix.NFT_META_MARK)
	compare(unix.NFT_CMP_NEQ, binary.NativeEndian.AppendUint32(nil, Mark))
	return append(out, expr("immediate", attr32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT),
		nest(unix.NFTA_IMMEDIATE_DATA, nest(unix.NFTA_DATA_VERDICT, attr32(unix.NFTA_VERDICT_CODE, nfDrop)))))
}

// List gives the names of all locks in the network namespace of the calling thread.
func List() (names []string, err error) {
	m := batch{}
	m.message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, unix.NFPROTO_INET, 0)
	fd, err := open(len(m.b))
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, m.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("nfnetlink: %w", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("nfnetlink: %w", err)
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(native.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return nil, fmt.Errorf("nfnetlink: message of %d bytes in %d", size, len(b))
			}
			switch native.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return names, nil
			case unix.NLMSG_ERROR:
				_, err := answer(b[:size], m.seq)
				return names, err
			}
			if name := tableName(b[unix.NLMSG_HDRLEN:size]); strings.HasPrefix(name, prefix) {
				names = append(names, name)
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

// tableName reads NFTA_TABLE_NAME behind a struct nfgenmsg.
func tableName(b []byte) string {
	for b = b[min(4, len(b)):]; len(b) >= unix.SizeofNlAttr; {
		size, typ := int(native.Uint16(b)), native.Uint16(b[2:])
		if size < unix.SizeofNlAttr || size > len(b) {
			break
		}
		if typ == 1 {
			return unix.ByteSliceToString(b[unix.SizeofNlAttr:size])
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return ""
}
