#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct item { int key; struct item *next; };

static struct item *list;
static int total, changes;
static volatile int stop, ticks;

static void *ticking(void *arg)
{
	(void)arg;
	while (!stop) {
		ticks++;
		usleep(500);
	}
	return NULL;
}

static void noted(int sig)
{
	changes += sig == SIGUSR1;
}

static int insert(int key)
{
	struct item *n = malloc(sizeof *n), **at = &list;

	n->key = key;
	while (*at && (*at)->key < key)
		at = &(*at)->next;
	n->next = *at;
	*at = n;
	total += key;
	return total;
}

int main(void)
{
	pthread_t t;

	signal(SIGUSR1, noted);
	pthread_create(&t, NULL, ticking, NULL);
	for (int i = 0; i < 8; i++)
		insert(i * 5 % 8);
	raise(SIGUSR1);
	stop = 1;
	pthread_join(t, NULL);
	for (struct item *p = list; p; p = p->next)
		printf("%d ", p->key);
	printf("total %d, changes %d, %s\n", total, changes, ticks > 0 ? "ticked" : "did not tick");
	return total == 28 && changes == 1 ? 0 : 1;
}
