// kind: files
// state: signal-driven input set up by another user: the signal may only go where he could send it
// users: root; changes its user while it sets the owner
// mutate: fown_entry.uid
#include "memfile.h"

static volatile sig_atomic_t got;

static void on_io(int sig)
{
	got++;
}

int main(int argc, char **argv)
{
	int mine[2], his[2];

	conf_init(argc, argv);
	signal(SIGIO, on_io);
	SYS(pipe(mine));
	SYS(pipe(his));
	SYS(fcntl(mine[0], F_SETOWN, getpid()));
	SYS(fcntl(mine[0], F_SETFL, O_ASYNC));
	/* Set by nobody, sent to a process of root's: never arrives. */
	SYS(setresuid(65534, 65534, 0));
	SYS(fcntl(his[0], F_SETOWN, getpid()));
	SYS(fcntl(his[0], F_SETFL, O_ASYNC));
	SYS(setresuid(0, 0, 0));
	SYS(write(his[1], "x", 1));
	SAME(got, 0);
	conf_ready();
	conf_wait_eintr();
	SAME(fcntl(his[0], F_GETOWN), getpid());
	SAME(write(his[1], "x", 1), 1);
	conf_sleep_ms(5);
	SAME(got, 0);
	SAME(write(mine[1], "x", 1), 1);
	UNTIL(got == 1, "SIGIO");
	conf_pass();
}
