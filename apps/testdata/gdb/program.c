#include <stdio.h>
#include <stdlib.h>

enum colour { RED, GREEN = 7, BLUE };

struct node {
	struct node *left, *right;
	enum colour colour;
	union { long number; char text[8]; } value;
	unsigned flags : 3;
};

static int numbers[] = { 3, 1, 4, 1, 5, 9, 2, 6 };
struct node root = { NULL, NULL, GREEN, { 42 }, 5 };

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

int main(int argc, char **argv)
{
	qsort(numbers, sizeof numbers / sizeof *numbers, sizeof *numbers, compare);
	for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
		printf("%d ", numbers[i]);
	printf("%ld\n", root.value.number);
	return 0;
}
