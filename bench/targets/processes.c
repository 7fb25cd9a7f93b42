// COUNT processes: a parent and its sleeping children.
#include "target.h"

int main(int argc, char **argv)
{
	for (long i = count_arg(argc, argv); i > 1; i--) {
		pid_t p = fork();
		if (p < 0)
			die("fork");
		if (p == 0)
			for (;;)
				pause();
	}
	ready_and_count();
}
