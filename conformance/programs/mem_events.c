// kind: memory
// state: memory that is moved, thrown away, unmapped, forked, replaced by exec and written all the time, also while its pages still come
// users: root nobody
// mutate: part:pages
// moving: maps tasks status fds
// unprivileged: only root can read shared anonymous memory whole
// notrack: it maps anew over a part of an area and moves the whole by one mremap; while writes are tracked these are two areas
#include "memfile.h"

/*
 * Two threads and a forked process play with slots of memory, each by itself:
 * every slot holds a stream of its own with some pages changed, or thrown away.
 * Each turn picks a slot and an act; what it holds is looked at before and after.
 * A shadow says what each page must hold: the seed of its stream, 0 for zeros.
 */
enum { SLOTS = 24, PAGES = 256 };

struct slot {
	char *p;
	uint64_t seed[PAGES]; /* of each page */
};

struct player {
	struct slot s[SLOTS];
	uint64_t rnd, turns;
	pthread_t t;
};

static struct player player[3];
static volatile long *sh; /* [i]: turns of player i; [8]: end */
static char self[PATH_MAX];

static uint64_t draw(struct player *w, uint64_t n)
{
	w->rnd = w->rnd * 6364136223846793005ULL + 1442695040888963407ULL;
	return (w->rnd >> 33) % n;
}

static void look(struct slot *s, size_t i)
{
	if (!s->p)
		return;
	if (s->seed[i])
		mf_check(s->p + i * PAGE, PAGE, s->seed[i], "page");
	else
		mf_zero(s->p + i * PAGE, PAGE, "thrown away page");
}

static void look_all(struct slot *s)
{
	for (size_t i = 0; i < PAGES; i++)
		look(s, i);
}

static void make(struct player *w, struct slot *s)
{
	s->p = mf_anon(PAGES * PAGE);
	for (size_t i = 0; i < PAGES; i++) {
		s->seed[i] = draw(w, 8) ? w->rnd | 1 : 0;
		if (s->seed[i])
			mf_fill(s->p + i * PAGE, PAGE, s->seed[i]);
	}
}

static void child_of(struct player *w, struct slot *s)
{
	pid_t pid = OK(fork());
	int st;

	if (pid == 0) {
		size_t i = draw(w, PAGES), k = draw(w, SLOTS);

		look_all(s);
		look_all(&w->s[k]);
		if (s->p) {	/* what the child does is not the parent's */
			OK(madvise(s->p, PAGES * PAGE / 2, MADV_DONTNEED));
			mf_fill(s->p + i * PAGE, PAGE, 99);
			mf_zero(s->p, (i < PAGES / 2 ? i : PAGES / 2) * PAGE, "the child's own zeros");
		}
		if (draw(w, 4) == 0)
			execl(self, self, "exec", NULL);
		_exit(0);
	}
	SAME(OK(waitpid(pid, &st, 0)), pid);
	CHECK(WIFEXITED(st) && WEXITSTATUS(st) == 0, "a child ended with %#x", st);
}

static void turn(struct player *w)
{
	struct slot *s = &w->s[draw(w, SLOTS)];
	size_t i = draw(w, PAGES), n = 1 + draw(w, PAGES - i);
	char *to;

	if (!s->p) {
		make(w, s);
		return;
	}
	switch (draw(w, 9)) {
	case 0:
		look_all(s);
		break;
	case 1:	/* move all of it */
		to = OK(mmap(NULL, PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		s->p = OK(mremap(s->p, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
		look(s, i);
		break;
	case 2:	/* throw pages away */
		OK(madvise(s->p + i * PAGE, n * PAGE, MADV_DONTNEED));
		memset(&s->seed[i], 0, n * sizeof(s->seed[0]));
		look(s, i + n / 2);
		break;
	case 3:	/* write without looking */
		s->seed[i] = w->rnd | 1;
		mf_fill(s->p + i * PAGE, PAGE, s->seed[i]);
		break;
	case 4:	/* map anew over a part */
		OK(mmap(s->p + i * PAGE, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		memset(&s->seed[i], 0, n * sizeof(s->seed[0]));
		look(s, i);
		break;
	case 5:
		look_all(s);
		OK(munmap(s->p, PAGES * PAGE));
		s->p = NULL;
		break;
	case 6:
		child_of(w, s);
		break;
	case 7: {	/* the kernel reads and writes it */
		int fd[2];

		if (!s->seed[i])
			break;
		OK(pipe(fd));
		CHECK(write(fd[1], s->p + i * PAGE, PAGE) == (ssize_t)PAGE, "write: %s", strerror(errno));
		i = draw(w, PAGES);
		CHECK(read(fd[0], s->p + i * PAGE, PAGE) == (ssize_t)PAGE, "read: %s", strerror(errno));
		for (size_t k = 0; k < PAGES; k++)
			if (s->seed[k] && !memcmp(s->p + k * PAGE, s->p + i * PAGE, PAGE))
				s->seed[i] = s->seed[k];
		look(s, i);
		close(fd[0]);
		close(fd[1]);
		break;
	}
	case 8:	/* swap two parts by way of a third place */
		to = OK(mremap(s->p, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, mf_anon(PAGES * PAGE)));
		s->p = to;
		look(s, i);
		break;
	}
}

static void *play(void *arg)
{
	struct player *w = arg;

	for (;; w->turns++) {
		sh[w - player] = w->turns;
		if (sh[8])
			break;
		turn(w);
	}
	for (size_t i = 0; i < SLOTS; i++)
		look_all(&w->s[i]);
	return NULL;
}

static void begin(int i)
{
	player[i].rnd = 77 + i;
	for (size_t k = 0; k < SLOTS; k++)
		make(&player[i], &player[i].s[k]);
}

int main(int argc, char **argv)
{
	long before[3];
	pid_t pid;
	int i;

	if (argc > 1 && !strcmp(argv[1], "exec"))
		return 0;
	conf_init(argc, argv);
	CHECK(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0, "set-up: exe: %s", strerror(errno));
	sh = conf_shared(4096);
	pid = SYS(fork()); /* before there is memory: what processes share is not left for later */
	if (pid == 0) {
		begin(2);
		play(&player[2]);
		_exit(0);
	}
	for (i = 0; i < 2; i++)
		begin(i);
	for (i = 0; i < 2; i++)
		PT(pthread_create(&player[i].t, NULL, play, &player[i]));
	UNTIL(sh[0] > 20 && sh[1] > 20 && sh[2] > 20, "the players");
	conf_ready();
	conf_wait();
	for (i = 0; i < 3; i++)
		before[i] = sh[i];
	for (i = 0; i < 3; i++)
		UNTIL(sh[i] > before[i] + 50, "the players to go on");
	sh[8] = 1;
	for (i = 0; i < 2; i++)
		PT(pthread_join(player[i].t, NULL));
	conf_reap_ok(pid);
	conf_pass();
}
