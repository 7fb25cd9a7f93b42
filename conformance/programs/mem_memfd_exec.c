// kind: memory
// state: a memfd with a script that is executed: its own descriptor is no writer
// users: root nobody
// mutate: memfd_file_entry.pos
#include "conformance.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

static int runs(int fd)
{
	char *argv[] = { "script", NULL }, *env[] = { NULL };
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execveat(fd, "", argv, env, AT_EMPTY_PATH);
		_exit(errno);
	}
	CHECK(waitpid(pid, &status, 0) == pid, "waitpid: %s", strerror(errno));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(int argc, char **argv)
{
	static const char script[] = "#!/bin/true\n";
	int fd;

	conf_init(argc, argv);
	fd = memfd_create("script", 0);
	CHECK(fd >= 0, "memfd_create: %s", strerror(errno));
	CHECK(write(fd, script, sizeof(script) - 1) == sizeof(script) - 1, "write: %s", strerror(errno));
	CHECK(runs(fd) == 0, "it does not run: %s", strerror(runs(fd)));
	conf_ready();
	conf_wait();
	CHECK(lseek(fd, 0, SEEK_CUR) == sizeof(script) - 1, "the offset is %ld", (long)lseek(fd, 0, SEEK_CUR));
	CHECK(runs(fd) == 0, "it does not run: %s", strerror(runs(fd)));
	conf_pass();
}
