// kind: udp
// state: sockets of IPv6 that add headers of their own to what they send: options for hops and for the destination; raw ones with whole headers (IPV6_HDRINCL)
// users: root; only CAP_NET_RAW may set these headers
// mutate: fermata.sock_extra.opts
// short: yes
// nocriu: forgets them
#include "sockaddr.h"

#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif

int main(int argc, char **argv)
{
	/* One option of padding each: PadN, RFC 8200. */
	static const unsigned char hop[8] = { 0, 0, 1, 4 }, dst[16] = { 0, 1, 1, 12 };
	int udp, tcp, raw;

	conf_init(argc, argv);
	udp = in_bound(AF_INET6, SOCK_DGRAM);
	tcp = in_bound(AF_INET6, SOCK_STREAM);
	SYS(setsockopt(udp, IPPROTO_IPV6, IPV6_HOPOPTS, hop, sizeof(hop)));
	SYS(setsockopt(udp, IPPROTO_IPV6, IPV6_DSTOPTS, dst, sizeof(dst)));
	SYS(setsockopt(tcp, IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, hop, sizeof(hop)));
	raw = SYS(socket(AF_INET6, SOCK_RAW, IPPROTO_EGP));
	opt_set(raw, IPPROTO_IPV6, IPV6_HDRINCL, 1);
	conf_ready();
	conf_wait();
	for (int i = 0; i < 3; i++) {
		unsigned char b[64];
		socklen_t n = sizeof(b);
		const unsigned char *want = i == 1 ? dst : hop;
		size_t size = i == 1 ? sizeof(dst) : sizeof(hop);

		OK(getsockopt(i == 2 ? tcp : udp, IPPROTO_IPV6, i == 0 ? IPV6_HOPOPTS : i == 1 ? IPV6_DSTOPTS : IPV6_RTHDRDSTOPTS, b, &n));
		CHECK(n == size && !memcmp(b, want, size), "header %d has %d bytes", i, (int)n);
	}
	SAME(opt_int(raw, IPPROTO_IPV6, IPV6_HDRINCL), 1);
	conf_pass();
}
