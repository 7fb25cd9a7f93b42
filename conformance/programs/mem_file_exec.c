// kind: memory
// state: a file mapped executable, and a shared mapping of it made executable after writing
// users: root nobody
// mutate: vma_entry.prot=1 reg_file_entry.name
#include "memfile.h"

#if defined(__x86_64__)
static const unsigned char code[] = { 0x8d, 0x47, 0x07, 0xc3 };	/* lea 7(%rdi),%eax; ret */
#elif defined(__aarch64__)
static const uint32_t code[] = { 0x11001c00, 0xd65f03c0 };	/* add w0, w0, 7; ret */
#endif

int main(int argc, char **argv)
{
	struct mf_area was[2], now;
	char *at[2];
	int fd;

	conf_init(argc, argv);
	fd = SYS(open("code", O_RDWR | O_CREAT, 0755));
	CHECK(pwrite(fd, code, sizeof(code), 3 * PAGE + 16) == sizeof(code), "set-up: pwrite: %s", strerror(errno));
	at[0] = SYS(mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 3 * PAGE));
	at[1] = SYS(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 3 * PAGE));
	memcpy(at[1] + 64, code, sizeof(code));
	SYS(mprotect(at[1], PAGE, PROT_READ | PROT_EXEC));
	close(fd);
	for (int i = 0; i < 2; i++) {
		mf_need_area(at[i], &was[i], "code");
		CHECK(((int (*)(int))(at[i] + 16))(3) == 10, "set-up: the code does not work");
	}
	conf_ready();
	conf_wait();
	for (int i = 0; i < 2; i++) {
		mf_need_area(at[i], &now, "code");
		mf_same_area(&now, &was[i], i ? "shared code" : "private code");
		SAME(((int (*)(int))(at[i] + 16))(5), 12);
		SAME(((int (*)(int))(at[i] + 64))(6), 13);
		mf_faults(at[i], true, SIGSEGV, SEGV_ACCERR, "writing to code");
	}
	conf_pass();
}
