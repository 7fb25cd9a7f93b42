// kind: credentials
// state: securebits with locks
// users: root; only root can set them
// mutate: creds_entry.secbits|fermata.thread_extra.securebits
#include "conformance.h"
#include <linux/securebits.h>

int main(int argc, char **argv)
{
	long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS | SECBIT_NO_CAP_AMBIENT_RAISE;

	conf_init(argc, argv);
	SYS(prctl(PR_SET_SECUREBITS, bits));
	conf_ready();
	conf_wait();
	SAME(prctl(PR_GET_SECUREBITS), bits);
	conf_pass();
}
