// kind: memory
// state: file mapping that reaches beyond the end of the file: SIGBUS there, until the file grows
// users: root nobody
// nocopies: one copy changes the file under the other
// mutate: reg_file_entry.name
#include "memfile.h"

int main(int argc, char **argv)
{
	char *shared, *priv;
	int fd;

	conf_init(argc, argv);
	mf_file("short", PAGE + 100, 1);
	fd = SYS(open("short", O_RDWR));
	shared = SYS(mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	priv = SYS(mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	mf_fill(priv + PAGE, PAGE, 2);	/* the last page, copied: beyond the end is ours too */
	conf_ready();
	conf_wait();
	mf_check(shared, PAGE + 100, 1, "shared");
	mf_zero(shared + PAGE + 100, PAGE - 100, "rest of the last page");
	mf_check(priv + PAGE, PAGE, 2, "the copied last page");
	mf_faults(shared + 2 * PAGE, false, SIGBUS, BUS_ADRERR, "beyond the end, shared");
	mf_faults(priv + 5 * PAGE, true, SIGBUS, BUS_ADRERR, "beyond the end, private");
	OK(ftruncate(fd, 4 * PAGE));
	mf_zero(shared + 2 * PAGE, 2 * PAGE, "what the file grew by");
	mf_faults(shared + 4 * PAGE, false, SIGBUS, BUS_ADRERR, "beyond the new end");
	conf_pass();
}
