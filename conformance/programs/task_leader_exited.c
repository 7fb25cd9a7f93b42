// kind: threads
// state: a process whose main thread has exited while another goes on
// users: root nobody
// refused: leader
#include "conformance.h"

static pthread_t leader;

static void *run(void *arg)
{
	UNTIL(conf_task_state(getpid()) == 'Z', "the main thread's end");
	conf_ready();
	conf_wait();
	conf_pass();
}

int main(int argc, char **argv)
{
	pthread_t t;

	conf_init(argc, argv);
	leader = pthread_self();
	PT(pthread_create(&t, NULL, run, NULL));
	pthread_exit(NULL);
}
