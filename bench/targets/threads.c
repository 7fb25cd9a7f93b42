// COUNT threads, all but one of which wait.
#include "target.h"
#include <pthread.h>

static void *wait_for_ever(void *arg)
{
	for (;;)
		pause();
	return arg;
}

int main(int argc, char **argv)
{
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (long i = count_arg(argc, argv); i > 1; i--) {
		pthread_t t;
		if (pthread_create(&t, &attr, wait_for_ever, NULL))
			die("pthread_create");
	}
	ready_and_count();
}
