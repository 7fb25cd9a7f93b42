// kind: unix sockets
// state: connections not yet accepted, of a child that sleeps reading and of the program itself; by path and abstract
// users: root nobody
// mutate: fermata.sock_extra.pending
// nocriu: may change the order of pending connections
#include "sockaddr.h"

static char at[64];
static const char *name[] = { "listener", at };

static void child(void)
{
	int fd[2];

	for (int i = 0; i < 2; i++)
		fd[i] = un_connected(SOCK_STREAM, name[i]);
	mf_mark("child-set");
	for (int i = 0; i < 2; i++) {
		mf_expect_stream(fd[i], 100, 20 + i, 0, "the answer");
		un_is(fd[i], true, name[i], "peer of the child's");
		mf_write_stream(fd[i], 3000, 10 + i, 0, "the child's connection");
	}
}

int main(int argc, char **argv)
{
	int l[2], mine[2];
	pid_t pid;

	conf_init(argc, argv);
	snprintf(at, sizeof(at), "@fermata-conformance-%d", getpid());
	for (int i = 0; i < 2; i++)
		l[i] = un_listener(SOCK_STREAM, name[i], 10);
	pid = mf_spawn(child);
	mf_await("child-set");
	for (int i = 0; i < 2; i++)
		mine[i] = un_connected(SOCK_STREAM, name[i]);	/* second in line */
	UNTIL(conf_in_syscall(pid, SYS_read), "the child to sleep");
	conf_ready();
	conf_wait();
	for (int i = 0; i < 2; i++) {
		int fd;

		SAME(mf_poll(l[i], POLLIN), POLLIN);
		fd = OK(accept(l[i], NULL, NULL));
		mf_empty(fd, "the child's connection");
		mf_write_stream(fd, 100, 20 + i, 0, "the child's connection");
		mf_expect_stream(fd, 3000, 10 + i, 0, "the child's connection");
		mf_write_stream(mine[i], 10, 40 + i, 0, "our own connection");
		fd = OK(accept(l[i], NULL, NULL));
		mf_expect_stream(fd, 10, 40 + i, 0, "our own connection");
		mf_empty(fd, "our own connection");
		mf_set_nonblock(l[i], true);
		CHECK(accept(l[i], NULL, NULL) < 0 && errno == EAGAIN, "a third connection");
	}
	conf_reap_ok(pid);
	conf_pass();
}
