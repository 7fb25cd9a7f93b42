// kind: unix sockets
// state: accepted connections between processes: names of both sides, a bound client, the listener closed or unlinked since
// users: root nobody
// mutate: unix_sk_entry.name unix_sk_entry.peer
// short: yes
// nocriu: forgets the name of a listener that is closed
#include "sockaddr.h"

static int fd[3], got[3];
static const char *client[] = { "", "client", "@" };
static char at[64];

static void child(void)
{
	for (int i = 0; i < 3; i++)
		close(got[i]);
	mf_mark("child-set");
	conf_wait();
	for (int i = 0; i < 3; i++) {
		un_is(fd[i], false, client[i], "the client");
		un_is(fd[i], true, "server", "the client's peer");
		mf_expect_stream(fd[i], 5000, i, 0, "from the server");
		mf_write_stream(fd[i], 5000, 10 + i, 0, "from the client");
		mf_eof(fd[i], "from the server");
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_un srv, a;
	socklen_t n = un_addr(&srv, "server");
	pid_t pid;
	int l;

	conf_init(argc, argv);
	snprintf(at, sizeof(at), "@fermata-conformance-client-%d", getpid());
	client[2] = at;
	l = un_listener(SOCK_STREAM, "server", 3);
	for (int i = 0; i < 3; i++) {
		fd[i] = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
		if (client[i][0])
			SYS(bind(fd[i], (struct sockaddr *)&a, un_addr(&a, client[i])));
		SYS(connect(fd[i], (struct sockaddr *)&srv, n));
		got[i] = SYS(accept(l, NULL, NULL));
		mf_write_stream(got[i], 5000, i, 0, "set-up");
	}
	close(l);
	SYS(unlink("server"));
	pid = mf_spawn(child);
	mf_await("child-set");
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	conf_ready();
	conf_wait();
	for (int i = 0; i < 3; i++) {
		un_is(got[i], false, "server", "the server");
		un_is(got[i], true, client[i], "the server's peer");
		mf_expect_stream(got[i], 5000, 10 + i, 0, "from the client");
		close(got[i]);
	}
	conf_reap_ok(pid);
	CHECK(access("server", F_OK) < 0, "the unlinked socket is back");
	CHECK(access("client", F_OK) == 0, "the client's socket is gone");
	conf_pass();
}
