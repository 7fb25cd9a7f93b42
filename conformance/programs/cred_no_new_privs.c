// kind: credentials
// state: no_new_privs, in one thread and not in the others
// users: root nobody
// mutate: creds_entry.no_new_privs
#include "conformance.h"

static volatile int set;

static void *run(void *arg)
{
	SYS(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	set = 1;
	conf_wait();
	SAME(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t t;

	conf_init(argc, argv);
	PT(pthread_create(&t, NULL, run, NULL));
	UNTIL(set, "the thread");
	conf_ready();
	conf_wait();
	PT(pthread_join(t, NULL));
	SAME(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	conf_pass();
}
