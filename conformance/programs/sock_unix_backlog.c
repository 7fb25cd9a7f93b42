// kind: unix sockets
// state: backlog of a listener: as many may wait as before, no more
// users: root nobody
// mutate: unix_sk_entry.backlog
#include "sockaddr.h"

int main(int argc, char **argv)
{
	struct sockaddr_un a;
	socklen_t len = un_addr(&a, "l");
	int n = 0;

	conf_init(argc, argv);
	un_listener(SOCK_STREAM, "l", 7);
	conf_ready();
	conf_wait();
	for (;; n++) {
		int fd = OK(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));

		if (connect(fd, (struct sockaddr *)&a, len) < 0) {
			CHECK(errno == EAGAIN, "connect: %s", strerror(errno));
			break;
		}
		CHECK(n < 100, "there is no end to the backlog");
	}
	SAME(n, 8);	/* the backlog and one */
	conf_pass();
}
