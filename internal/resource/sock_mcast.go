package resource

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Multicast groups that a socket has joined. No call lists them, but one tells of
// a group and interface whether, and from which sources, the socket receives it
// (MCAST_MSFILTER, RFC 3678, Linux 2.6.0): it is asked of all groups that the
// machine receives (/proc/net/igmp and igmp6). The answers lie among the options
// of sock_extra.

// mcastGroup is a group that an interface receives.
type mcastGroup struct {
	index uint32
	addr  netip.Addr
}

type mcastKey struct{}

func mcastGroups(d *Dump) []mcastGroup {
	m, _ := Value(d, mcastKey{}, func() ([]mcastGroup, error) {
		v4, _ := os.ReadFile("/proc/self/net/igmp")
		v6, _ := os.ReadFile("/proc/self/net/igmp6")
		return append(parseIGMP(string(v4)), parseIGMP6(string(v6))...), nil
	})
	return m
}

// parseIGMP reads a line for each interface, which begins with its index, and
// after it an indented one for each group, which begins with the group.
func parseIGMP(s string) (out []mcastGroup) {
	index := uint64(0)
	for i, line := range strings.Split(s, "\n") {
		w := strings.Fields(line)
		if i == 0 || len(w) < 3 {
			continue
		}
		if line[0] != '\t' && line[0] != ' ' {
			index, _ = strconv.ParseUint(w[0], 10, 32)
			continue
		}
		if b, err := hex.DecodeString(w[0]); err == nil && len(b) == 4 {
			binary.NativeEndian.PutUint32(b, binary.BigEndian.Uint32(b))
			out = append(out, mcastGroup{uint32(index), netip.AddrFrom4([4]byte(b))})
		}
	}
	return out
}

// parseIGMP6 reads lines of an interface's index, name, and a group.
func parseIGMP6(s string) (out []mcastGroup) {
	for _, line := range strings.Split(s, "\n") {
		w := strings.Fields(line)
		if len(w) < 3 {
			continue
		}
		index, err := strconv.ParseUint(w[0], 10, 32)
		b, err2 := hex.DecodeString(w[2])
		if err == nil && err2 == nil && len(b) == 16 {
			out = append(out, mcastGroup{uint32(index), netip.AddrFrom16([16]byte(b))})
		}
	}
	return out
}

// struct group_filter and struct group_req (include/uapi/linux/in.h): an
// interface, a sockaddr_storage, and of the first a mode, a count and sources.
const (
	groupReqSize    = 8 + 128
	groupFilterHead = groupReqSize + 8
	groupSourcesMax = 64
)

// collectGroups saves the groups that a socket has joined.
func (s *inetSock) collectGroups(d *Dump, fd int) {
	for _, g := range mcastGroups(d) {
		level, family := unix.IPPROTO_IP, unix.AF_INET
		if g.addr.Is6() {
			level, family = unix.IPPROTO_IPV6, unix.AF_INET6
			if s.sock.domain != family {
				continue
			}
		}
		b := make([]byte, groupFilterHead+128*groupSourcesMax)
		binary.NativeEndian.PutUint32(b, g.index)
		copy(b[8:], endpoint{addr: g.addr}.sockaddr(family))
		binary.NativeEndian.PutUint32(b[groupReqSize+4:], groupSourcesMax)
		n, err := sys.Getsockopt(fd, level, unix.MCAST_MSFILTER, b)
		if err != nil || n < groupFilterHead {
			continue // not joined
		}
		size := groupFilterHead + 128*min(int(nativeUint32(b[groupReqSize+4:])), groupSourcesMax)
		x := d.sockExtra(s.f)
		x.Opts = append(x.Opts, &fm.SockOpt{Level: proto.Int32(int32(level)), Name: proto.Int32(unix.MCAST_MSFILTER), Value: b[:size]})
	}
}

// joinGroups joins them again.
func (s *inetEnd) joinGroups() error {
	for _, o := range s.x.GetOpts() {
		v := o.GetValue()
		if o.GetName() != unix.MCAST_MSFILTER || len(v) < groupFilterHead || (o.GetLevel() != unix.IPPROTO_IP && o.GetLevel() != unix.IPPROTO_IPV6) {
			continue
		}
		err := sys.Setsockopt(s.fd, int(o.GetLevel()), unix.MCAST_JOIN_GROUP, v[:groupReqSize])
		if err == nil || errors.Is(err, unix.EADDRINUSE) {
			err = sys.Setsockopt(s.fd, int(o.GetLevel()), unix.MCAST_MSFILTER, v)
		}
		if err != nil {
			return fmt.Errorf("joining a multicast group: %w", err)
		}
	}
	return nil
}
