// kind: sockets
// state: raw sockets of the protocols TCP and UDP
// users: root; only root can make raw sockets
// mutate: inet_sk_entry.proto
#include "conformance.h"
#include <netinet/in.h>
#include <sys/socket.h>

static int proto(int fd)
{
	int p = -1;
	socklen_t n = sizeof(p);

	CHECK(getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &p, &n) == 0, "SO_PROTOCOL: %s", strerror(errno));
	return p;
}

int main(int argc, char **argv)
{
	int tcp, udp;

	conf_init(argc, argv);
	tcp = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
	udp = socket(AF_INET6, SOCK_RAW, IPPROTO_UDP);
	CHECK(tcp >= 0 && udp >= 0, "raw sockets: %s", strerror(errno));
	conf_ready();
	conf_wait();
	CHECK(proto(tcp) == IPPROTO_TCP, "protocol %d", proto(tcp));
	CHECK(proto(udp) == IPPROTO_UDP, "protocol %d", proto(udp));
	conf_pass();
}
