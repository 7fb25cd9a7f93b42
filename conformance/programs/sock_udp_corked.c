// kind: udp
// state: datagrams that are being put together, by UDP_CORK and MSG_MORE: to the peer, to an address of their own, larger than a packet
// users: root; only who may read the kernel's memory sees them
// mutate: fermata.sock_extra.corked fermata.sock_extra.corked_to
// short: yes
// nocriu: refuses corked sockets
#include "sockaddr.h"

#ifndef UDP_CORK
#define UDP_CORK 1
#endif

static const struct {
	int family, proto, cork;
	size_t size;
	int connected;
} kinds[] = {
	{ AF_INET, IPPROTO_UDP, 1, 10, 1 },    { AF_INET, IPPROTO_UDP, 0, 10, 0 },
	{ AF_INET6, IPPROTO_UDP, 1, 10, 0 },   { AF_INET6, IPPROTO_UDP, 0, 10, 1 },
	{ AF_INET, IPPROTO_UDP, 1, 60000, 0 }, { AF_INET6, IPPROTO_UDP, 1, 60000, 1 },
	{ AF_INET, IPPROTO_UDP, 1, 3, 1 },     { AF_INET6, IPPROTO_UDP, 0, 40000, 0 },
};
#define N ((int)(sizeof(kinds) / sizeof(kinds[0])))

int main(int argc, char **argv)
{
	static char b[65536], got[65536];
	int from[N], to[N];

	conf_init(argc, argv);
	for (int i = 0; i < N; i++) {
		struct sockaddr_storage s;
		socklen_t n;
		size_t half = kinds[i].size / 2;

		to[i] = in_bound(kinds[i].family, SOCK_DGRAM);
		from[i] = SYS(socket(kinds[i].family, SOCK_DGRAM, kinds[i].proto));
		n = in_loop(&s, kinds[i].family, in_port(to[i], false));
		if (kinds[i].connected)
			SYS(connect(from[i], (struct sockaddr *)&s, n));
		if (kinds[i].cork)
			opt_set(from[i], IPPROTO_UDP, UDP_CORK, 1);
		mf_fill_at(b, kinds[i].size, i, 0);
		for (int k = 0; k < 2; k++) /* in two pieces */
			SYS(sendto(from[i], b + k * half, k ? kinds[i].size - half : half, kinds[i].cork ? 0 : MSG_MORE,
				   kinds[i].connected ? NULL : (struct sockaddr *)&s, kinds[i].connected ? 0 : n));
	}
	conf_ready();
	conf_wait();
	for (int i = 0; i < N; i++) {
		struct sockaddr_storage s;
		socklen_t n = in_loop(&s, kinds[i].family, in_port(to[i], false));
		ssize_t r = recv(to[i], got, sizeof(got), MSG_DONTWAIT);

		CHECK(r < 0 && errno == EAGAIN, "datagram %d was sent (%zd bytes)", i, r);
		SAME(opt_int(from[i], IPPROTO_UDP, UDP_CORK), kinds[i].cork);
		if (kinds[i].cork) {
			int off = 0;

			OK(sendto(from[i], "end", 3, 0, NULL, 0));
			r = recv(to[i], got, sizeof(got), MSG_DONTWAIT);
			CHECK(r < 0 && errno == EAGAIN, "datagram %d was sent (%zd bytes)", i, r);
			OK(setsockopt(from[i], IPPROTO_UDP, UDP_CORK, &off, sizeof(off)));
		} else {
			OK(sendto(from[i], "end", 3, 0, kinds[i].connected ? NULL : (struct sockaddr *)&s, kinds[i].connected ? 0 : n));
		}
		mf_fill_at(b, kinds[i].size, i, 0);
		memcpy(b + kinds[i].size, "end", 3);
		r = recv(to[i], got, sizeof(got), 0);
		CHECK(r == (ssize_t)kinds[i].size + 3 && !memcmp(b, got, r), "datagram %d: %zd bytes of %zu", i, r, kinds[i].size + 3);
		SAME(in_port(from[i], kinds[i].connected), kinds[i].connected ? in_port(to[i], false) : in_port(from[i], false));
	}
	conf_pass();
}
