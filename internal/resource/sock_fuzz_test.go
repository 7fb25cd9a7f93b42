package resource

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzSocketText feeds the parsers of what the kernel writes about sockets.
func FuzzSocketText(f *testing.F) {
	f.Add("  sl  local_address rem_address   st\n 1: 0100007F:0008 0200007F:0000 01 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n")
	f.Add("Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n")
	f.Add("1    lo              ff020000000000000000000000000001     1 0000000C 0\n")
	f.Fuzz(func(t *testing.T, s string) {
		m := map[uint64]endpoint{}
		parseRawPeers(s, m)
		for _, p := range m {
			if !p.addr.IsValid() {
				t.Errorf("%q: %v", s, p)
			}
		}
		for _, g := range append(parseIGMP(s), parseIGMP6(s)...) {
			if !g.addr.IsValid() {
				t.Errorf("%q: %v", s, g)
			}
		}
		if p, err := parseEndpoint([]byte(s)); err == nil {
			family := unix.AF_INET
			if p.addr.Is6() {
				family = unix.AF_INET6
			}
			if q, ok := endpointOf(family, p.words(family), uint32(p.port)); !ok || q.addr != p.addr || q.port != p.port {
				t.Errorf("%q: %v becomes %v", s, p, q)
			}
		}
		netlinkAddr([]byte(s))
	})
}

func TestSocketText(t *testing.T) {
	m := map[uint64]endpoint{}
	parseRawPeers("head\n 1: 00000000:0008 0200007F:0005 01 0:0 0:0 0 0 0 4711 2\n 2: 0:8 0200007F:5 07 0:0 0:0 0 0 0 4712 2\n", m)
	if len(m) != 1 || m[4711].String() != "127.0.0.2:5" {
		t.Errorf("%v", m)
	}
	g := parseIGMP("head\n3\teth0 : 1 V3\n\t\t\t\tFB0000E0 1 0:00000000 0\n")
	if len(g) != 1 || g[0].index != 3 || g[0].addr.String() != "224.0.0.251" {
		t.Errorf("%v", g)
	}
}
