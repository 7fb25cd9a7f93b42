// One thread under seccomp beside one that is not: argv is a page file, then
// "strict" or "filter". The thread counts; whoever makes it do another system
// call than its own ends the program.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile uint64_t *P;
static const char *how;
static int pp[2];

static void *confined(void *a)
{
	if (!strcmp(how, "strict")) {
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) P[1]++;
	} else {
		struct sock_filter f[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		};
		struct sock_fprog p = { 4, f };
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p)) P[1]++;
	}
	for (char c;;) {
		if (read(pp[0], &c, 1) != 1) P[1]++;
		P[0]++;
	}
}

int main(int argc, char **argv)
{
	int fd = open(argv[1], O_RDWR);
	P = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	how = argv[2];
	if (pipe(pp)) return 1;
	pthread_t t;
	pthread_create(&t, 0, confined, 0);
	for (;;) {
		if (write(pp[1], "x", 1) != 1) P[1]++;
		usleep(1000);
	}
}
