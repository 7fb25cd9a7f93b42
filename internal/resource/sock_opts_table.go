package resource

import "golang.org/x/sys/unix"

// The table of all options of all sockets; sock_opts.go reads and sets them.

// Options that x/sys has no name for (include/uapi/linux/tcp.h,
// include/uapi/linux/in6.h, include/uapi/linux/udp.h).
const (
	tcpTxDelay           = 37
	tcpRTOMaxMS          = 44   // Linux 6.15
	tcpRTOMinUS          = 45   // Linux 6.16
	tcpDelackMaxUS       = 46   // Linux 6.16
	ipv6HdrIncl          = 36   // Linux 4.15
	extensionSize        = 2048 // of a header of IPv6, at most (8 times 256, RFC 8200)
	ipv6Flowinfo         = 11
	ipv6FlowinfoSend     = 33
	ipv6AddrPreferences  = 72
	ipv6MinHopCount      = 73
	ipv6OrigDstAddr      = 74
	ipv6UnicastIF        = 76
	ipv6RecvFragSize     = 77
	ipv6MulticastAll     = 29
	ipv6RouterAlertIso   = 30
	ipv6RecvErrRFC4884   = 31
	ipv62292Pktinfo      = 2
	ipv62292Hopopts      = 3
	ipv62292Dstopts      = 4
	ipv62292RtHdr        = 5
	ipv62292HopLimit     = 8
	udpNoCheck6TX        = 101
	udpNoCheck6RX        = 102
	udpliteSendCscov     = 10
	udpliteRecvCscov     = 11
	rawICMPFilter        = 1
	netlinkListenAllNSID = 8
)

// The order matters where one option changes another: IP_TOS sets SO_PRIORITY,
// SO_RCVLOWAT may enlarge SO_RCVBUF, setting a buffer's size sets SO_BUF_LOCK.
var sockOpts = []sockOpt{
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_V6ONLY, field: "inet.v6only", early: true},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_FREEBIND, early: true},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_TRANSPARENT, early: true},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_UNICAST_HOPS},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_MULTICAST_IF, when: manyCast},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_MULTICAST_HOPS, when: manyCast},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_MULTICAST_LOOP, when: manyCast},
	{level: unix.IPPROTO_IPV6, name: ipv6MulticastAll, when: manyCast},
	{level: unix.IPPROTO_IPV6, name: ipv6UnicastIF},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_CHECKSUM, when: isRaw},
	{level: unix.IPPROTO_IPV6, name: ipv6HdrIncl, when: isRaw},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_HOPOPTS, size: extensionSize},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RTHDRDSTOPTS, size: extensionSize},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RTHDR, size: extensionSize},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_DSTOPTS, size: extensionSize},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RECVPKTINFO},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RECVHOPLIMIT},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RECVHOPOPTS},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RECVRTHDR},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RECVDSTOPTS},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RECVTCLASS},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RECVPATHMTU},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_RECVERR},
	{level: unix.IPPROTO_IPV6, name: ipv6RecvErrRFC4884},
	{level: unix.IPPROTO_IPV6, name: ipv6RecvFragSize},
	{level: unix.IPPROTO_IPV6, name: ipv6OrigDstAddr},
	{level: unix.IPPROTO_IPV6, name: ipv62292Pktinfo},
	{level: unix.IPPROTO_IPV6, name: ipv62292Hopopts},
	{level: unix.IPPROTO_IPV6, name: ipv62292Dstopts},
	{level: unix.IPPROTO_IPV6, name: ipv62292RtHdr},
	{level: unix.IPPROTO_IPV6, name: ipv62292HopLimit},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_MTU_DISCOVER},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_DONTFRAG},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_TCLASS},
	{level: unix.IPPROTO_IPV6, name: unix.IPV6_AUTOFLOWLABEL},
	{level: unix.IPPROTO_IPV6, name: ipv6Flowinfo},
	{level: unix.IPPROTO_IPV6, name: ipv6FlowinfoSend},
	{level: unix.IPPROTO_IPV6, name: ipv6AddrPreferences},
	{level: unix.IPPROTO_IPV6, name: ipv6MinHopCount},
	{level: unix.IPPROTO_IPV6, name: ipv6RouterAlertIso},

	{level: unix.IPPROTO_IP, name: unix.IP_FREEBIND, field: "ip.freebind", early: true},
	{level: unix.IPPROTO_IP, name: unix.IP_TRANSPARENT, early: true},
	{level: unix.IPPROTO_IP, name: unix.IP_BIND_ADDRESS_NO_PORT, early: true},
	{level: unix.IPPROTO_IP, name: unix.IP_LOCAL_PORT_RANGE, early: true},
	{level: unix.IPPROTO_IP, name: unix.IP_TOS, field: "ip.tos"},
	{level: unix.IPPROTO_IP, name: unix.IP_TTL, field: "ip.ttl"},
	{level: unix.IPPROTO_IP, name: unix.IP_MINTTL},
	{level: unix.IPPROTO_IP, name: unix.IP_OPTIONS, size: 40},
	{level: unix.IPPROTO_IP, name: unix.IP_HDRINCL, field: "raw.hdrincl", when: isRaw},
	{level: unix.IPPROTO_IP, name: unix.IP_NODEFRAG, field: "raw.nodefrag", when: isRaw},
	{level: unix.IPPROTO_IP, name: unix.IP_CHECKSUM},
	{level: unix.IPPROTO_IP, name: unix.IP_PKTINFO, field: "ip.pktinfo"},
	{level: unix.IPPROTO_IP, name: unix.IP_RECVOPTS},
	{level: unix.IPPROTO_IP, name: unix.IP_RETOPTS},
	{level: unix.IPPROTO_IP, name: unix.IP_RECVTTL},
	{level: unix.IPPROTO_IP, name: unix.IP_RECVTOS},
	{level: unix.IPPROTO_IP, name: unix.IP_RECVERR},
	{level: unix.IPPROTO_IP, name: unix.IP_RECVERR_RFC4884},
	{level: unix.IPPROTO_IP, name: unix.IP_RECVFRAGSIZE},
	{level: unix.IPPROTO_IP, name: unix.IP_RECVORIGDSTADDR},
	{level: unix.IPPROTO_IP, name: unix.IP_PASSSEC},
	{level: unix.IPPROTO_IP, name: unix.IP_MTU_DISCOVER},
	{level: unix.IPPROTO_IP, name: unix.IP_MULTICAST_IF, when: manyCast},
	{level: unix.IPPROTO_IP, name: unix.IP_MULTICAST_TTL, when: manyCast},
	{level: unix.IPPROTO_IP, name: unix.IP_MULTICAST_LOOP, when: manyCast},
	{level: unix.IPPROTO_IP, name: unix.IP_MULTICAST_ALL, when: manyCast},
	{level: unix.IPPROTO_IP, name: unix.IP_UNICAST_IF},
	{level: unix.SOL_RAW, name: rawICMPFilter, when: isRaw},
	{level: unix.SOL_ICMPV6, name: unix.ICMPV6_FILTER, size: 32, when: isRaw},

	{level: unix.IPPROTO_TCP, name: unix.TCP_MAXSEG, early: true, when: idleTCP},
	{level: unix.IPPROTO_TCP, name: unix.TCP_FASTOPEN, early: true, when: idleTCP},
	{level: unix.IPPROTO_TCP, name: unix.TCP_FASTOPEN_KEY, size: 32, when: listenTCP},
	{level: unix.IPPROTO_TCP, name: unix.TCP_FASTOPEN_CONNECT, when: idleTCP},
	{level: unix.IPPROTO_TCP, name: unix.TCP_FASTOPEN_NO_COOKIE},
	{level: unix.IPPROTO_TCP, name: unix.TCP_DEFER_ACCEPT},
	{level: unix.IPPROTO_TCP, name: unix.TCP_SAVE_SYN, early: true},
	{level: unix.IPPROTO_TCP, name: unix.TCP_CONGESTION, size: 16},
	{level: unix.IPPROTO_TCP, name: unix.TCP_NODELAY, field: "tcp.nodelay"},
	{level: unix.IPPROTO_TCP, name: unix.TCP_CORK, field: "tcp.cork"},
	{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPCNT, field: "tcp.keepcnt"},
	{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPIDLE, field: "tcp.keepidle"},
	{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPINTVL, field: "tcp.keepintvl"},
	{level: unix.IPPROTO_TCP, name: unix.TCP_SYNCNT},
	{level: unix.IPPROTO_TCP, name: unix.TCP_LINGER2},
	{level: unix.IPPROTO_TCP, name: unix.TCP_USER_TIMEOUT},
	{level: unix.IPPROTO_TCP, name: unix.TCP_THIN_LINEAR_TIMEOUTS},
	{level: unix.IPPROTO_TCP, name: unix.TCP_NOTSENT_LOWAT},
	{level: unix.IPPROTO_TCP, name: unix.TCP_INQ},
	{level: unix.IPPROTO_TCP, name: tcpTxDelay},
	{level: unix.IPPROTO_TCP, name: tcpRTOMaxMS},
	{level: unix.IPPROTO_TCP, name: tcpRTOMinUS},
	{level: unix.IPPROTO_TCP, name: tcpDelackMaxUS},

	{level: unix.IPPROTO_UDP, name: unix.UDP_CORK},
	{level: unix.IPPROTO_UDP, name: unix.UDP_ENCAP},
	{level: unix.IPPROTO_UDP, name: udpNoCheck6TX},
	{level: unix.IPPROTO_UDP, name: udpNoCheck6RX},
	{level: unix.IPPROTO_UDP, name: unix.UDP_SEGMENT},
	{level: unix.IPPROTO_UDP, name: unix.UDP_GRO},
	{level: unix.IPPROTO_UDPLITE, name: udpliteSendCscov},
	{level: unix.IPPROTO_UDPLITE, name: udpliteRecvCscov},

	{level: unix.SOL_NETLINK, name: unix.NETLINK_PKTINFO},
	{level: unix.SOL_NETLINK, name: unix.NETLINK_BROADCAST_ERROR},
	{level: unix.SOL_NETLINK, name: unix.NETLINK_NO_ENOBUFS},
	{level: unix.SOL_NETLINK, name: netlinkListenAllNSID},
	{level: unix.SOL_NETLINK, name: unix.NETLINK_CAP_ACK},
	{level: unix.SOL_NETLINK, name: unix.NETLINK_EXT_ACK},
	{level: unix.SOL_NETLINK, name: unix.NETLINK_GET_STRICT_CHK},

	{level: unix.SOL_SOCKET, name: unix.SO_REUSEPORT, field: "so_reuseport", early: true},
	{level: unix.SOL_SOCKET, name: unix.SO_REUSEADDR, field: "reuseaddr", early: true},
	{level: unix.SOL_SOCKET, name: unix.SO_BINDTODEVICE, field: "so_bound_dev", size: unix.IFNAMSIZ, early: true},
	{level: unix.SOL_SOCKET, name: unix.SO_MARK, field: "so_mark", early: true},
	{level: unix.SOL_SOCKET, name: unix.SO_PRIORITY, field: "so_priority"},
	{level: unix.SOL_SOCKET, name: unix.SO_INCOMING_CPU, when: listenTCP},
	{level: unix.SOL_SOCKET, name: unix.SO_DEBUG},
	{level: unix.SOL_SOCKET, name: unix.SO_DONTROUTE, field: "so_dontroute"},
	{level: unix.SOL_SOCKET, name: unix.SO_BROADCAST, field: "so_broadcast"},
	{level: unix.SOL_SOCKET, name: unix.SO_KEEPALIVE, field: "so_keepalive"},
	{level: unix.SOL_SOCKET, name: unix.SO_OOBINLINE, field: "so_oobinline"},
	{level: unix.SOL_SOCKET, name: unix.SO_NO_CHECK, field: "so_no_check"},
	{level: unix.SOL_SOCKET, name: unix.SO_LINGER, field: "so_linger", size: 8},
	{level: unix.SOL_SOCKET, name: unix.SO_RCVLOWAT, field: "so_rcvlowat"},
	{level: unix.SOL_SOCKET, name: unix.SO_SNDBUF, field: "so_sndbuf", force: unix.SO_SNDBUFFORCE},
	{level: unix.SOL_SOCKET, name: unix.SO_RCVBUF, field: "so_rcvbuf", force: unix.SO_RCVBUFFORCE},
	{level: unix.SOL_SOCKET, name: unix.SO_BUF_LOCK, field: "so_buf_lock"},
	{level: unix.SOL_SOCKET, name: unix.SO_RCVTIMEO, field: "so_rcv_tmo", size: 16},
	{level: unix.SOL_SOCKET, name: unix.SO_SNDTIMEO, field: "so_snd_tmo", size: 16},
	{level: unix.SOL_SOCKET, name: unix.SO_PASSCRED, field: "so_passcred"},
	{level: unix.SOL_SOCKET, name: unix.SO_PASSSEC, field: "so_passsec"},
	{level: unix.SOL_SOCKET, name: unix.SO_PASSPIDFD},
	{level: unix.SOL_SOCKET, name: unix.SO_PASSRIGHTS},
	{level: unix.SOL_SOCKET, name: unix.SO_INQ},
	{level: unix.SOL_SOCKET, name: unix.SO_TIMESTAMP},
	{level: unix.SOL_SOCKET, name: unix.SO_TIMESTAMPNS},
	{level: unix.SOL_SOCKET, name: unix.SO_TIMESTAMP_NEW},
	{level: unix.SOL_SOCKET, name: unix.SO_TIMESTAMPNS_NEW},
	{level: unix.SOL_SOCKET, name: unix.SO_TIMESTAMPING, size: 8},
	{level: unix.SOL_SOCKET, name: unix.SO_TIMESTAMPING_NEW, size: 8},
	{level: unix.SOL_SOCKET, name: unix.SO_RXQ_OVFL},
	{level: unix.SOL_SOCKET, name: unix.SO_RCVMARK},
	{level: unix.SOL_SOCKET, name: unix.SO_RCVPRIORITY},
	{level: unix.SOL_SOCKET, name: unix.SO_WIFI_STATUS, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_NOFCS, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_SELECT_ERR_QUEUE},
	{level: unix.SOL_SOCKET, name: unix.SO_BUSY_POLL, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_PREFER_BUSY_POLL, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_BUSY_POLL_BUDGET, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_MAX_PACING_RATE, size: 8, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_ZEROCOPY, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_TXTIME, size: 8, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_TXREHASH, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_RESERVE_MEM, when: isInet},
	{level: unix.SOL_SOCKET, name: unix.SO_PEEK_OFF},
	// The size lies between the two others.
	{level: unix.AF_VSOCK, name: unix.SO_VM_SOCKETS_BUFFER_MAX_SIZE, size: 8},
	{level: unix.AF_VSOCK, name: unix.SO_VM_SOCKETS_BUFFER_MIN_SIZE, size: 8},
	{level: unix.AF_VSOCK, name: unix.SO_VM_SOCKETS_BUFFER_SIZE, size: 8},
	{level: unix.AF_VSOCK, name: unix.SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW, size: 16},
	{level: unix.IPPROTO_TCP, name: unix.TCP_WINDOW_CLAMP},
	{level: unix.SOL_SOCKET, name: unix.SO_LOCK_FILTER},
}
