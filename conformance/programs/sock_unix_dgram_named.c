// kind: unix sockets
// state: named datagram sockets: connected ones, one server with messages of several senders, their addresses
// users: root nobody
// mutate: sk_packet_entry unix_sk_entry.peer unix_sk_entry.name
// nocriu: mixes up the senders
#include "sockaddr.h"

static int server;

static void from(const char *sender, const char *data)
{
	struct sockaddr_un a = { 0 }, want;
	socklen_t n = sizeof(a), k = *sender ? un_addr(&want, sender) : 0;
	char buf[64];
	ssize_t r = recvfrom(server, buf, sizeof(buf), MSG_DONTWAIT, (struct sockaddr *)&a, &n);

	CHECK(r == (ssize_t)strlen(data) && !memcmp(buf, data, r), "the message is %.*s, not %s", (int)r, buf, data);
	CHECK(n == k && (!k || !memcmp(&a, &want, k)), "message %s came from \"%s\", not \"%s\"", data,
	      n > 2 ? a.sun_path + !a.sun_path[0] : "", sender);
}

int main(int argc, char **argv)
{
	struct sockaddr_un a;
	char at[64], buf[64];
	int one, two, nameless, peer;
	socklen_t n;

	conf_init(argc, argv);
	snprintf(at, sizeof(at), "@fermata-conformance-%d", getpid());
	server = un_bound(SOCK_DGRAM, "server");
	one = un_bound(SOCK_DGRAM, "one");
	two = un_bound(SOCK_DGRAM, at);
	nameless = SYS(socket(AF_UNIX, SOCK_DGRAM, 0));
	n = un_addr(&a, "server");
	SYS(connect(one, (struct sockaddr *)&a, n));
	SYS(send(one, "from one", 8, 0));
	SYS(sendto(two, "from two", 8, 0, (struct sockaddr *)&a, n));
	SYS(sendto(nameless, "from nobody", 11, 0, (struct sockaddr *)&a, n));
	SYS(send(one, "", 0, 0));
	peer = SYS(dup(two));
	conf_ready();
	conf_wait();
	un_is(one, false, "one", "name of one");
	un_is(one, true, "server", "peer of one");
	un_is(two, false, at, "name of two");
	from("one", "from one");
	from(at, "from two");
	from("", "from nobody");
	from("one", "");
	mf_empty(server, "server");
	SAME(send(one, "again", 5, 0), 5);
	from("one", "again");
	n = un_addr(&a, at);
	SAME(sendto(server, "reply", 5, 0, (struct sockaddr *)&a, n), 5);
	SAME(recv(peer, buf, sizeof(buf), MSG_DONTWAIT), 5);
	CHECK(sendto(nameless, "x", 1, 0, NULL, 0) < 0 && errno == ENOTCONN, "the unconnected socket is connected");
	close(server);
	CHECK(send(one, "x", 1, 0) < 0 && errno == ECONNREFUSED, "the server's end goes unseen: %s", strerror(errno));
	conf_pass();
}
