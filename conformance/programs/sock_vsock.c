// kind: vsock sockets
// state: vsock sockets: fresh, bound, listeners with their options, stream and seqpacket
// users: root nobody
// mutate: part:sock-extra
// short: yes
// nocriu: knows no vsock
#include "sockaddr.h"
#include <linux/vm_sockets.h>

static int bound(int type)
{
	struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = VMADDR_PORT_ANY };
	int fd = SYS(socket(AF_VSOCK, type, 0));

	SYS(bind(fd, (struct sockaddr *)&a, sizeof(a)));
	return fd;
}

static unsigned int port(int fd)
{
	struct sockaddr_vm a;
	socklen_t n = sizeof(a);

	OK(getsockname(fd, (struct sockaddr *)&a, &n));
	SAME(a.svm_cid, VMADDR_CID_ANY);
	return a.svm_port;
}

static unsigned long long size(int fd, int name)
{
	unsigned long long v = 0;
	socklen_t n = sizeof(v);

	OK(getsockopt(fd, AF_VSOCK, name, &v, &n));
	return v;
}

int main(int argc, char **argv)
{
	static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET };
	unsigned long long most = 1 << 20, least = 4096, room = 77777;
	int fresh[2], b[2], l[2];
	unsigned int was[4];

	conf_init(argc, argv);
	for (int i = 0; i < 2; i++) {
		fresh[i] = SYS(socket(AF_VSOCK, types[i] | SOCK_NONBLOCK, 0));
		b[i] = bound(types[i]);
		l[i] = bound(types[i]);
		SYS(listen(l[i], 5));
		SYS(setsockopt(l[i], AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &most, sizeof(most)));
		SYS(setsockopt(l[i], AF_VSOCK, SO_VM_SOCKETS_BUFFER_MIN_SIZE, &least, sizeof(least)));
		SYS(setsockopt(l[i], AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &room, sizeof(room)));
		opt_set(l[i], SOL_SOCKET, SO_RCVLOWAT, 7);
		was[2 * i] = port(b[i]);
		was[2 * i + 1] = port(l[i]);
	}
	conf_ready();
	conf_wait();
	for (int i = 0; i < 2; i++) {
		struct sockaddr_vm a = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = was[2 * i + 1] };
		int fd;

		SAME(opt_int(fresh[i], SOL_SOCKET, SO_TYPE), types[i]);
		SAME(OK(fcntl(fresh[i], F_GETFL)) & O_NONBLOCK, O_NONBLOCK);
		SAME(port(b[i]), was[2 * i]);
		SAME(port(l[i]), was[2 * i + 1]);
		SAME(opt_int(b[i], SOL_SOCKET, SO_ACCEPTCONN), 0);
		SAME(opt_int(l[i], SOL_SOCKET, SO_ACCEPTCONN), 1);
		SAME(size(l[i], SO_VM_SOCKETS_BUFFER_MAX_SIZE), most);
		SAME(size(l[i], SO_VM_SOCKETS_BUFFER_MIN_SIZE), least);
		SAME(size(l[i], SO_VM_SOCKETS_BUFFER_SIZE), room);
		SAME(opt_int(l[i], SOL_SOCKET, SO_RCVLOWAT), 7);
		/* The port is taken. */
		fd = OK(socket(AF_VSOCK, types[i], 0));
		CHECK(bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno == EADDRINUSE, "the port is free");
		OK(listen(b[i], 1));
	}
	conf_pass();
}
