// kind: task
// state: all sixteen resource limits, soft and hard
// users: root nobody
// mutate: rlimit_entry.cur=7777777 rlimit_entry.max=8888888
#include "conformance.h"

int main(int argc, char **argv)
{
	struct rlimit want[16], now;
	int i;

	conf_init(argc, argv);
	for (i = 0; i < 16; i++) {
		SYS(getrlimit(i, &want[i]));
		switch (i) {
		case RLIMIT_NOFILE:
			want[i].rlim_cur = 100;
			want[i].rlim_max = 500;
			break;
		case RLIMIT_STACK:
			want[i].rlim_cur = 3 << 20;
			break;
		case RLIMIT_AS:
			want[i].rlim_cur = 1UL << 44;
			want[i].rlim_max = 1UL << 45;
			break;
		case RLIMIT_DATA:
			want[i].rlim_cur = 1UL << 33;
			break;
		case RLIMIT_CPU:
			want[i].rlim_cur = 100000;
			want[i].rlim_max = 200000;
			break;
		case RLIMIT_FSIZE:
			want[i].rlim_cur = 1 << 30;
			break;
		case RLIMIT_MEMLOCK:
			want[i].rlim_cur = 0; /* as some daemons do */
			break;
		case RLIMIT_SIGPENDING:
			want[i].rlim_cur = 77;
			break;
		case RLIMIT_CORE:
			want[i].rlim_cur = 0;
			want[i].rlim_max = 0;
			break;
		case RLIMIT_NPROC:
			want[i].rlim_cur = 5000;
			break;
		case RLIMIT_LOCKS:
			want[i].rlim_cur = 11;
			want[i].rlim_max = 12;
			break;
		}
		SYS(setrlimit(i, &want[i]));
	}
	conf_ready();
	conf_wait();
	for (i = 0; i < 16; i++) {
		OK(getrlimit(i, &now));
		CHECK(now.rlim_cur == want[i].rlim_cur && now.rlim_max == want[i].rlim_max, "limit %d is %ld/%ld, was %ld/%ld", i,
		      (long)now.rlim_cur, (long)now.rlim_max, (long)want[i].rlim_cur, (long)want[i].rlim_max);
	}
	conf_pass();
}
