// kind: udp
// state: sockets bound to an address that the machine does not have (IP_FREEBIND), that option taken back since or not: UDP, TCP listeners
// users: root nobody
// mutate: inet_sk_entry.src_addr fermata.sock_extra.addr_foreign
// short: yes
// nocriu: binds with the option's last value
#include "sockaddr.h"

int main(int argc, char **argv)
{
	struct sockaddr_in four = { .sin_family = AF_INET };
	struct sockaddr_in6 six = { .sin6_family = AF_INET6 };
	struct sockaddr_storage was[8];
	int fd[8];

	conf_init(argc, argv);
	inet_pton(AF_INET, "198.51.100.7", &four.sin_addr); /* for documentation, RFC 5737 and 3849 */
	inet_pton(AF_INET6, "2001:db8::7", &six.sin6_addr);
	for (int i = 0; i < 8; i++) {
		socklen_t n = sizeof(was[i]);

		fd[i] = SYS(socket(i & 1 ? AF_INET6 : AF_INET, i & 2 ? SOCK_STREAM : SOCK_DGRAM, 0));
		opt_set(fd[i], IPPROTO_IP, IP_FREEBIND, 1);
		if (i & 1)
			SYS(bind(fd[i], (struct sockaddr *)&six, sizeof(six)));
		else
			SYS(bind(fd[i], (struct sockaddr *)&four, sizeof(four)));
		if (i & 2)
			SYS(listen(fd[i], 5));
		if (i & 4)
			opt_set(fd[i], IPPROTO_IP, IP_FREEBIND, 0);
		memset(&was[i], 0, sizeof(was[i]));
		SYS(getsockname(fd[i], (struct sockaddr *)&was[i], &n));
	}
	conf_ready();
	conf_wait();
	for (int i = 0; i < 8; i++) {
		struct sockaddr_storage now;
		socklen_t n = sizeof(now);

		memset(&now, 0, sizeof(now));
		OK(getsockname(fd[i], (struct sockaddr *)&now, &n));
		CHECK(memcmp(&now, &was[i], sizeof(now)) == 0, "socket %d: another address", i);
		SAME(opt_int(fd[i], IPPROTO_IP, IP_FREEBIND), (i & 4) == 0);
		if (i & 2)
			SAME(opt_int(fd[i], SOL_SOCKET, SO_ACCEPTCONN), 1);
	}
	conf_pass();
}
