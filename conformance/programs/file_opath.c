// kind: files
// state: O_PATH descriptors of a file, a directory, a symbolic link, a socket and a file without permission
// users: root nobody
// mutate: reg_file_entry.flags
// nocriu: takes an O_PATH descriptor of a socket for a socket
#include "memfile.h"
#include <sys/un.h>

int main(int argc, char **argv)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "sock" };
	char buf[64];
	struct stat st;
	int file, dir, sym, sock, secret, fd, fl[5];

	conf_init(argc, argv);
	mf_file("f", 100, 1);
	SYS(mkdir("d", 0755));
	mf_file("d/g", 100, 2);
	SYS(symlink("nowhere", "s"));
	fd = SYS(socket(AF_UNIX, SOCK_STREAM, 0));
	SYS(bind(fd, (struct sockaddr *)&un, sizeof(un)));
	close(fd);
	mf_file("secret", 10, 3);
	SYS(chmod("secret", 0));
	file = SYS(open("f", O_PATH));
	dir = SYS(open("d", O_PATH | O_DIRECTORY | O_CLOEXEC));
	sym = SYS(open("s", O_PATH | O_NOFOLLOW));
	sock = SYS(open("sock", O_PATH));
	secret = SYS(open("secret", O_PATH));
	for (int i = 0; i < 5; i++)
		fl[i] = fcntl((int[]){ file, dir, sym, sock, secret }[i], F_GETFL);
	conf_ready();
	conf_wait();
	for (int i = 0; i < 5; i++)
		SAME(fcntl((int[]){ file, dir, sym, sock, secret }[i], F_GETFL), fl[i]);
	SAME(fcntl(file, F_GETFL) & O_PATH, O_PATH);
	CHECK(read(file, buf, 1) < 0 && errno == EBADF, "an O_PATH descriptor can be read");
	snprintf(buf, sizeof(buf), "/proc/self/fd/%d", file);
	fd = OK(open(buf, O_RDONLY));
	mf_expect_stream(fd, 100, 1, 0, "the file");
	fd = OK(openat(dir, "g", O_RDONLY));
	mf_expect_stream(fd, 100, 2, 0, "the file in the directory");
	OK(fstat(sym, &st));
	CHECK(S_ISLNK(st.st_mode), "the symbolic link is none");
	SAME(readlinkat(sym, "", buf, sizeof(buf)), 7);
	CHECK(!memcmp(buf, "nowhere", 7), "the symbolic link is another");
	OK(fstat(sock, &st));
	CHECK(S_ISSOCK(st.st_mode), "the socket is none");
	OK(fstat(secret, &st));
	SAME(st.st_mode & 0777, 0);
	conf_pass();
}
