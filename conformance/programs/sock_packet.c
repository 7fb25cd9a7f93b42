// kind: packet sockets
// state: raw, datagram and obsolete (SOCK_PACKET) packet sockets: protocol, interface, options, membership, fanout, filter, rings of each version that nobody has mapped
// users: root; only CAP_NET_RAW may make packet sockets
// mutate: packet_sock_entry.protocol packet_sock_entry.rx_ring
// short: yes
// nocriu: forgets PACKET_COPY_THRESH
#include "sockaddr.h"
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/mman.h>

#define OWN 0x88b5 /* ETH_P_802_EX1, for experiments */
#define BLOCK 16384
#define FRAME 2048

static int made(int type, int proto, int index)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(proto), .sll_ifindex = index };
	int fd = SYS(socket(AF_PACKET, type, 0));

	SYS(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

/* send_one sends a frame over the loopback interface. */
static void send_one(int fd, int index, int n)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(OWN), .sll_ifindex = index, .sll_halen = 6 };
	char b[100];

	memset(b, n, sizeof(b));
	OK(sendto(fd, b, sizeof(b), 0, (struct sockaddr *)&a, sizeof(a)));
}

static bool waits(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1;
}

int main(int argc, char **argv)
{
	struct sock_filter none[] = { { BPF_RET | BPF_K, 0, 0, 0 } };
	struct sock_fprog prog = { 1, none };
	struct packet_mreq m = { .mr_type = PACKET_MR_ALLMULTI };
	struct sockaddr_pkt old = { .spkt_family = AF_PACKET, .spkt_protocol = htons(OWN) };
	struct sockaddr_ll a;
	socklen_t n;
	int lo, raw, dgram, silent, obsolete, fan[2], ring[3], from;
	char b[200], *map;

	conf_init(argc, argv);
	lo = SYS(if_nametoindex("lo"));
	raw = made(SOCK_RAW, OWN, lo);
	opt_set(raw, SOL_PACKET, PACKET_AUXDATA, 1);
	opt_set(raw, SOL_PACKET, PACKET_ORIGDEV, 1);
	m.mr_ifindex = lo;
	SYS(setsockopt(raw, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &m, sizeof(m)));
	dgram = made(SOCK_DGRAM, OWN, 0);
	silent = made(SOCK_DGRAM, OWN, lo);
	SYS(setsockopt(silent, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)));
	obsolete = SYS(socket(AF_PACKET, SOCK_PACKET, htons(OWN)));
	strcpy((char *)old.spkt_device, "lo");
	SYS(bind(obsolete, (struct sockaddr *)&old, sizeof(struct sockaddr)));
	for (int i = 0; i < 2; i++) {
		fan[i] = made(SOCK_DGRAM, OWN, lo);
		opt_set(fan[i], SOL_PACKET, PACKET_FANOUT, PACKET_FANOUT_LB << 16 | 4711);
	}
	for (int v = 0; v < 3; v++) {
		struct tpacket_req3 q = {
			.tp_block_size = BLOCK, .tp_block_nr = 4, .tp_frame_size = FRAME, .tp_frame_nr = 4 * BLOCK / FRAME,
			.tp_retire_blk_tov = 20, .tp_sizeof_priv = 16,
		};

		ring[v] = SYS(socket(AF_PACKET, SOCK_DGRAM, 0));
		opt_set(ring[v], SOL_PACKET, PACKET_VERSION, v); /* TPACKET_V1, _V2, _V3 */
		opt_set(ring[v], SOL_PACKET, PACKET_RESERVE, 32);
		SYS(setsockopt(ring[v], SOL_PACKET, PACKET_RX_RING, &q, v == TPACKET_V3 ? sizeof(q) : sizeof(struct tpacket_req)));
		memset(&a, 0, sizeof(a));
		a.sll_family = AF_PACKET;
		a.sll_protocol = htons(OWN);
		a.sll_ifindex = lo;
		SYS(bind(ring[v], (struct sockaddr *)&a, sizeof(a)));
	}
	conf_ready();
	conf_wait();
	n = sizeof(a);
	OK(getsockname(raw, (struct sockaddr *)&a, &n));
	SAME(ntohs(a.sll_protocol), OWN);
	SAME(a.sll_ifindex, lo);
	SAME(opt_int(raw, SOL_PACKET, PACKET_AUXDATA), 1);
	SAME(opt_int(raw, SOL_PACKET, PACKET_ORIGDEV), 1);
	OK(setsockopt(raw, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &m, sizeof(m)));
	n = sizeof(a);
	OK(getsockname(dgram, (struct sockaddr *)&a, &n));
	SAME(a.sll_ifindex, 0);
	for (int i = 0; i < 2; i++)
		SAME(opt_int(fan[i], SOL_PACKET, PACKET_FANOUT), PACKET_FANOUT_LB << 16 | 4711);
	for (int v = 0; v < 3; v++) {
		SAME(opt_int(ring[v], SOL_PACKET, PACKET_VERSION), v);
		SAME(opt_int(ring[v], SOL_PACKET, PACKET_RESERVE), 32);
		map = mmap(NULL, 4 * BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, ring[v], 0);
		CHECK(map != MAP_FAILED, "ring %d: %s", v, strerror(errno));
	}
	from = OK(socket(AF_PACKET, SOCK_DGRAM, 0));
	for (int i = 0; i < 4; i++)
		send_one(from, lo, i);
	CHECK(waits(raw, 1000) && recv(raw, b, sizeof(b), 0) == 114, "nothing comes by the raw socket");
	CHECK(waits(dgram, 1000) && recv(dgram, b, sizeof(b), 0) == 100, "nothing comes by the datagram socket");
	CHECK(waits(obsolete, 1000) && recv(obsolete, b, sizeof(b), 0) == 114, "nothing comes by the obsolete socket");
	CHECK(!waits(silent, 0), "the filter lets something pass");
	CHECK(waits(fan[0], 1000) && waits(fan[1], 1000), "the load is not balanced");
	for (int v = 0; v < 3; v++)
		CHECK(waits(ring[v], 1000), "nothing comes into ring %d", v);
	conf_pass();
}
