// kind: unix sockets
// state: listeners: by path, by relative path, abstract, unlinked, seqpacket; connecting works as before
// users: root nobody
// mutate: unix_sk_entry.state unix_sk_entry.name
// short: yes
#include "sockaddr.h"

static int l[5];
static const char *name[5];

static void client(void)
{
	for (int i = 0; i < 4; i++) {
		int fd = un_connected(i == 3 ? SOCK_SEQPACKET : SOCK_STREAM, name[i]);

		un_is(fd, true, name[i], "peer of the client");
		SAME(write(fd, &i, sizeof(i)), sizeof(i));
		mf_eof(fd, "client");
	}
}

int main(int argc, char **argv)
{
	char abs[PATH_MAX], at[64];
	struct stat st;
	pid_t pid;

	conf_init(argc, argv);
	snprintf(abs, sizeof(abs), "%s", conf_path("by-path"));
	if (strlen(abs) > 100)
		strcpy(abs, "by-path");
	snprintf(at, sizeof(at), "@fermata-conformance-%d", getpid());
	name[0] = abs;
	name[1] = "relative";
	name[2] = at;
	name[3] = "seqpacket";
	name[4] = "unlinked";
	for (int i = 0; i < 5; i++)
		l[i] = un_listener(i == 3 ? SOCK_SEQPACKET : SOCK_STREAM, name[i], 3);
	SYS(chmod("relative", 0620));
	SYS(unlink("unlinked"));
	mf_set_nonblock(l[4], true);
	conf_ready();
	conf_wait();
	pid = mf_spawn(client);
	for (int i = 0; i < 4; i++) {
		int fd, v;

		un_is(l[i], false, name[i], "listener");
		SAME(opt_int(l[i], SOL_SOCKET, SO_ACCEPTCONN), 1);
		SAME(opt_int(l[i], SOL_SOCKET, SO_TYPE), i == 3 ? SOCK_SEQPACKET : SOCK_STREAM);
		fd = OK(accept(l[i], NULL, NULL));
		un_is(fd, false, name[i], "accepted");
		SAME(read(fd, &v, sizeof(v)), sizeof(v));
		SAME(v, i);
		close(fd);
	}
	conf_reap_ok(pid);
	un_is(l[4], false, "unlinked", "unlinked listener");
	SAME(opt_int(l[4], SOL_SOCKET, SO_ACCEPTCONN), 1);
	CHECK(access("unlinked", F_OK) < 0, "the unlinked socket is back");
	CHECK(accept(l[4], NULL, NULL) < 0 && errno == EAGAIN, "accept: %s", strerror(errno));
	OK(stat("relative", &st));
	SAME(st.st_mode, S_IFSOCK | 0620);
	SAME(st.st_uid, getuid());
	/* The name is taken still. */
	SAME(close(l[2]), 0);
	l[2] = un_listener(SOCK_STREAM, name[2], 1);
	conf_pass();
}
