// kind: udp
// state: datagrams received and not yet read, with their senders' addresses
// users: root nobody
// mutate: sk_packet_entry
// nocriu: drops received datagrams
#include "sockaddr.h"

int main(int argc, char **argv)
{
	static const int size[] = { 3, 0, 9000, 1 };
	struct sockaddr_storage s;
	static char buf[10000];
	int fd, from[2];
	socklen_t n;

	conf_init(argc, argv);
	fd = in_bound(AF_INET, SOCK_DGRAM);
	for (int i = 0; i < 2; i++)
		from[i] = in_connected(AF_INET, SOCK_DGRAM, in_port(fd, false));
	for (int i = 0; i < 4; i++) {
		mf_fill(buf, size[i], i);
		SAME(send(from[i & 1], buf, size[i], 0), size[i]);
	}
	conf_ready();
	conf_wait();
	for (int i = 0; i < 4; i++) {
		n = sizeof(s);
		SAME(recvfrom(fd, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&s, &n), size[i]);
		SAME(ntohs(((struct sockaddr_in *)&s)->sin_port), in_port(from[i & 1], false));
		mf_check(buf, size[i], i, "datagram");
	}
	mf_empty(fd, "the queue");
	conf_pass();
}
