package resource

import "golang.org/x/sys/unix"

// MPTCP (Documentation/networking/mptcp.rst, net/mptcp). A listener of MPTCP
// takes clients of either kind, and gives those of plain TCP a socket of plain
// TCP; Go's servers have listened so since Go 1.24. A connection of MPTCP is saved
// like one of TCP, as one stream: how many paths it takes, the kernel decides
// anew. It has no repair mode: it is made again by a handshake, and what has not
// been acknowledged must be read before.

func (s *inetSock) mptcp() bool { return s.sock.proto == unix.IPPROTO_MPTCP }

func (s *inetEnd) mptcp() bool { return s.proto() == unix.IPPROTO_MPTCP }

// mptcpState gives the state of a connection. TCP_INFO tells that of its first
// path, which stays established when one direction is shut down.
func (s *inetSock) mptcpState(d *Dump, fd int) (int, error) {
	k, err := d.Kernel()
	if err != nil {
		return 0, err
	}
	state := int(k.Socket(fd).As("sock_common").Uint("skc_state"))
	return state, k.Err()
}
