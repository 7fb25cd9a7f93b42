// kind: files
// state: a directory whose changes are told by a signal (F_NOTIFY)
// users: root nobody
// refused: F_NOTIFY
#include "conformance.h"

static volatile int told;

static void on_change(int sig)
{
	(void)sig;
	told++;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_change, .sa_flags = SA_RESTART };
	int dir;

	conf_init(argc, argv);
	SYS(sigaction(SIGIO, &sa, NULL));
	SYS(mkdir("dir", 0700));
	dir = SYS(open("dir", O_RDONLY));
	if (fcntl(dir, F_NOTIFY, DN_CREATE | DN_MULTISHOT) < 0)
		conf_skip("F_NOTIFY: %s", strerror(errno));
	conf_ready();
	conf_wait_eintr();
	OK(close(OK(open("dir/new", O_CREAT | O_WRONLY, 0600))));
	UNTIL(told == 1, "the signal");
	conf_pass();
}
