package resource

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The peer of a raw or ping socket that was connected without a port is not told
// by getpeername(2), and few kernels have a socket monitor for these. It stands
// in /proc/net/raw, raw6, icmp and icmp6 (net/ipv4/raw.c, net/ipv4/ping.c).

type rawPeersKey struct{}

// rawPeers gives the peers of the connected raw and ping sockets, by inode.
func rawPeers(d *Dump) map[uint64]endpoint {
	m, _ := Value(d, rawPeersKey{}, func() (map[uint64]endpoint, error) {
		m := map[uint64]endpoint{}
		for _, name := range []string{"raw", "raw6", "icmp", "icmp6"} {
			b, err := os.ReadFile("/proc/self/net/" + name)
			if err == nil {
				parseRawPeers(string(b), m)
			}
		}
		return m, nil
	})
	return m
}

// parseRawPeers reads lines of the form
//
//	sl: LOCAL:PORT REMOTE:PORT STATE TX:RX TR:WHEN RETR UID TIMEOUT INODE …
func parseRawPeers(s string, m map[uint64]endpoint) {
	for _, line := range strings.Split(s, "\n") {
		w := strings.Fields(line)
		if len(w) < 10 {
			continue
		}
		state, err1 := strconv.ParseUint(w[3], 16, 8)
		ino, err2 := strconv.ParseUint(w[9], 10, 64)
		addr, port, ok := strings.Cut(w[2], ":")
		p, err3 := strconv.ParseUint(port, 16, 16)
		if err1 != nil || err2 != nil || err3 != nil || !ok || state != stateEstablished {
			continue
		}
		// Words of the address, printed as numbers of this machine.
		b, err := hex.DecodeString(addr)
		if err != nil || len(b)%4 != 0 {
			continue
		}
		for i := 0; i < len(b); i += 4 {
			binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
		}
		if a, ok := netip.AddrFromSlice(b); ok {
			m[ino] = endpoint{addr: a, port: uint16(p)}
		}
	}
}

// rawPeer finds the peer of a socket that tells none.
func (s *inetSock) rawPeer(d *Dump) {
	icmp := s.sock.proto == unix.IPPROTO_ICMP || s.sock.proto == unix.IPPROTO_ICMPV6
	if s.dst.addr.IsValid() || (s.sock.typ != unix.SOCK_RAW && !icmp) {
		return
	}
	if p, ok := rawPeers(d)[s.f.Stat.Ino]; ok {
		s.dst = p
		s.setDst()
	}
}
