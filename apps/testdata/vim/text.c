#include <stdio.h>

/* A text to be edited: vim does not mind what it says. */
struct counter {
	const char *name;
	int count;
	struct counter *next;
};

static int total(const struct counter *c)
{
	int count = 0;
	for (; c; c = c->next)
		count += c->count;
	return count;
}

int main(void)
{
	struct counter a = { "first", 1, NULL };
	struct counter b = { "second", 2, &a };
	struct counter c = { "third", 3, &b };
	printf("%d in all, the last is %s\n", total(&c), c.name);
	for (int i = 0; i < 3; i++) {
		a.count += i;
		b.count *= 2;
		printf("%d\n", total(&c));
	}
	return 0;
}
