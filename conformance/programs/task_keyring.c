// kind: task
// state: a key in a keyring of the process's own
// users: root nobody
// refused: keyring
#include "conformance.h"

#define KEYCTL_READ 11
#define PROCESS_KEYRING (-2)

int main(int argc, char **argv)
{
	char b[16];
	int key;

	conf_init(argc, argv);
	key = syscall(SYS_add_key, "user", "conf", "secret", 6, PROCESS_KEYRING);
	if (key < 0)
		conf_skip("add_key: %s", strerror(errno));
	conf_ready();
	conf_wait();
	SAME(OK(syscall(SYS_keyctl, KEYCTL_READ, key, b, sizeof(b))), 6);
	conf_pass();
}
