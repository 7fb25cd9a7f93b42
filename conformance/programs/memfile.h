/*
 * Helpers of the memory, file, socket and terminal programs: patterns that
 * prove themselves, what the kernel says of one memory area or descriptor,
 * and children that take part in a check.
 *
 * Nothing here allocates: the map of the program is the same before and after.
 */
#ifndef MEMFILE_H
#define MEMFILE_H

#include "conformance.h"
#include <poll.h>
#include <setjmp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define PAGE ((size_t)sysconf(_SC_PAGESIZE))

/* mf_word is the pattern's word number i of the stream seed (splitmix64). */
static CONF_UNUSED uint64_t mf_word(uint64_t seed, uint64_t i)
{
	uint64_t z = seed * 0x632be59bd9b4e019ULL + (i + 1) * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* mf_byte is byte number i of the stream seed. */
static CONF_UNUSED unsigned char mf_byte(uint64_t seed, uint64_t i)
{
	return mf_word(seed, i / 8) >> (i % 8 * 8);
}

/* mf_fill writes bytes [from, from+n) of the stream seed to p. */
static CONF_UNUSED void mf_fill_at(void *p, size_t n, uint64_t seed, uint64_t from)
{
	unsigned char *b = p;

	for (size_t i = 0; i < n;) {
		if ((from + i) % 8 == 0 && n - i >= 8) {	/* a word at a time */
			uint64_t w = mf_word(seed, (from + i) / 8);

			memcpy(b + i, &w, 8);
			i += 8;
		} else {
			b[i] = mf_byte(seed, from + i);
			i++;
		}
	}
}

static CONF_UNUSED void mf_fill(void *p, size_t n, uint64_t seed)
{
	mf_fill_at(p, n, seed, 0);
}

/* mf_check_at fails unless p holds bytes [from, from+n) of the stream seed. */
static CONF_UNUSED void mf_check_at(const void *p, size_t n, uint64_t seed, uint64_t from, const char *what)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < n; i++) {
		if ((from + i) % 8 == 0 && n - i >= 8) {
			uint64_t w = mf_word(seed, (from + i) / 8);

			if (!memcmp(b + i, &w, 8)) {
				i += 7;
				continue;
			}
		}
		if (b[i] != mf_byte(seed, from + i))
			conf_fail("%s: byte %zu of %zu is 0x%02x, not 0x%02x", what, i, n, b[i],
				  mf_byte(seed, from + i));
	}
}

static CONF_UNUSED void mf_check(const void *p, size_t n, uint64_t seed, const char *what)
{
	mf_check_at(p, n, seed, 0, what);
}

/* mf_zero fails unless p holds n zero bytes. */
static CONF_UNUSED void mf_zero(const void *p, size_t n, const char *what)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < n; i++)
		if (b[i])
			conf_fail("%s: byte %zu of %zu is 0x%02x, not zero", what, i, n, b[i]);
}

/* mf_anon is new private memory, readable and writable. */
static CONF_UNUSED char *mf_anon(size_t n)
{
	return SYS(mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

/* mf_file makes DIR/name with n bytes of the stream seed. */
static CONF_UNUSED void mf_file(const char *name, size_t n, uint64_t seed)
{
	int fd = SYS(open(conf_path(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
	char buf[4096];

	for (size_t at = 0; at < n; at += sizeof(buf)) {
		size_t k = n - at < sizeof(buf) ? n - at : sizeof(buf);

		mf_fill_at(buf, k, seed, at);
		CHECK(write(fd, buf, k) == (ssize_t)k, "set-up: write %s: %s", name, strerror(errno));
	}
	close(fd);
}

/* mf_write_all and mf_read_all move exactly n bytes or fail. */
static CONF_UNUSED void mf_write_all(int fd, const void *p, size_t n, const char *what)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = write(fd, (const char *)p + at, n - at);

		CHECK(r > 0, "%s: write of %zu after %zu: %s", what, n, at, strerror(errno));
		at += r;
	}
}

static CONF_UNUSED void mf_read_all(int fd, void *p, size_t n, const char *what)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = read(fd, (char *)p + at, n - at);

		CHECK(r >= 0, "%s: read of %zu after %zu: %s", what, n, at, strerror(errno));
		CHECK(r > 0, "%s: end of file after %zu of %zu bytes", what, at, n);
		at += r;
	}
}

/* mf_write_stream and mf_expect_stream do so with bytes of the stream seed. */
static CONF_UNUSED void mf_write_stream(int fd, size_t n, uint64_t seed, uint64_t from, const char *what)
{
	char buf[4096];

	for (size_t at = 0; at < n; at += sizeof(buf)) {
		size_t k = n - at < sizeof(buf) ? n - at : sizeof(buf);

		mf_fill_at(buf, k, seed, from + at);
		mf_write_all(fd, buf, k, what);
	}
}

static CONF_UNUSED void mf_expect_stream(int fd, size_t n, uint64_t seed, uint64_t from, const char *what)
{
	char buf[4096];

	for (size_t at = 0; at < n; at += sizeof(buf)) {
		size_t k = n - at < sizeof(buf) ? n - at : sizeof(buf);

		mf_read_all(fd, buf, k, what);
		mf_check_at(buf, k, seed, from + at, what);
	}
}

/* mf_flood writes the stream to a non-blocking fd until it is full. */
static CONF_UNUSED size_t mf_flood(int fd, uint64_t seed, uint64_t from)
{
	size_t n = 0;
	char buf[4096];

	for (;;) {
		mf_fill_at(buf, sizeof(buf), seed, from + n);
		ssize_t r = write(fd, buf, sizeof(buf));

		if (r < 0 && errno == EAGAIN)
			return n;
		CHECK(r > 0, "set-up: flood: %s", strerror(errno));
		n += r;
	}
}

/* mf_set_nonblock turns O_NONBLOCK on or off. */
static CONF_UNUSED void mf_set_nonblock(int fd, bool on)
{
	int fl = SYS(fcntl(fd, F_GETFL));

	SYS(fcntl(fd, F_SETFL, on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK));
}

/* mf_eof fails unless the next read gives the end of file. */
static CONF_UNUSED void mf_eof(int fd, const char *what)
{
	char c;
	ssize_t r = read(fd, &c, 1);

	CHECK(r == 0, "%s: read gives %zd (%s), not the end of file", what, r, r < 0 ? strerror(errno) : "data");
}

/* mf_empty fails unless a non-blocking fd has nothing to read. */
static CONF_UNUSED void mf_empty(int fd, const char *what)
{
	char c;
	ssize_t r = recv(fd, &c, 1, MSG_DONTWAIT);

	if (r < 0 && errno == ENOTSOCK)
		r = read(fd, &c, 1);
	CHECK(r < 0 && errno == EAGAIN, "%s: read gives %zd (%s), not EAGAIN", what, r, r < 0 ? strerror(errno) : "data");
}

/* mf_poll is what poll says of fd now. */
static CONF_UNUSED int mf_poll(int fd, int events)
{
	struct pollfd p = { .fd = fd, .events = events };

	SYS(poll(&p, 1, 0));
	return p.revents;
}

/*
 * mf_mark and mf_await order the steps of several processes with files of DIR:
 * they need no kernel object that would have to be restored.
 */
static CONF_UNUSED void mf_mark(const char *name)
{
	if (mknod(conf_path(name), S_IFREG | 0644, 0) < 0 && errno != EEXIST)
		conf_fail("mark %s: %s", name, strerror(errno));
}

static CONF_UNUSED void mf_await(const char *name)
{
	UNTIL(access(conf_path(name), F_OK) == 0, name);
}

/* mf_spawn starts a child that runs fn and exits with status 0. */
static CONF_UNUSED pid_t mf_spawn(void (*fn)(void))
{
	pid_t pid = SYS(fork());

	if (pid == 0) {
		fn();
		_exit(0);
	}
	return pid;
}

/* What the kernel says of the area that holds an address (kB). */
struct mf_area {
	uint64_t start, end, off;
	char perms[8];
	char name[256];
	long size, rss, pss, shared_clean, shared_dirty, private_clean, private_dirty;
	long anonymous, anon_huge, locked;
	char flags[256]; /* " rd wr mr ..." with a blank at each end */
};

/* A reader of lines that needs no heap. */
struct mf_lines {
	int fd;
	size_t n, at;
	char buf[8192];
};

static CONF_UNUSED void mf_lines_open(struct mf_lines *l, const char *path)
{
	l->fd = SYS(open(path, O_RDONLY | O_CLOEXEC));
	l->n = l->at = 0;
}

static CONF_UNUSED bool mf_line(struct mf_lines *l, char *line, size_t size)
{
	size_t k = 0;

	for (;;) {
		if (l->at == l->n) {
			ssize_t r = read(l->fd, l->buf, sizeof(l->buf));

			if (r <= 0)
				break;
			l->n = r;
			l->at = 0;
		}
		char c = l->buf[l->at++];

		if (c == '\n') {
			line[k] = 0;
			return true;
		}
		if (k < size - 1)
			line[k++] = c;
	}
	line[k] = 0;
	return k > 0;
}

/* mf_area_of reads /proc/self/smaps; false if nothing is mapped at addr. */
static CONF_UNUSED bool mf_area_of(const void *addr, struct mf_area *a)
{
	struct mf_lines l;
	char line[1024];
	bool in = false;

	mf_lines_open(&l, "/proc/self/smaps");
	while (mf_line(&l, line, sizeof(line))) {
		uint64_t s, e, off;
		char perms[8];
		int pos = 0;

		if (sscanf(line, "%lx-%lx %7s %lx %*s %*s%n", &s, &e, perms, &off, &pos) >= 4 && pos) {
			if (in)
				break;
			if ((uintptr_t)addr >= s && (uintptr_t)addr < e) {
				in = true;
				memset(a, 0, sizeof(*a));
				a->start = s;
				a->end = e;
				a->off = off;
				strcpy(a->perms, perms);
				while (line[pos] == ' ')
					pos++;
				snprintf(a->name, sizeof(a->name), "%.255s", line + pos);
			}
			continue;
		}
		if (!in)
			continue;
#define MF_FIELD(key, f) sscanf(line, key ": %ld", &a->f)
		MF_FIELD("Size", size);
		MF_FIELD("Rss", rss);
		MF_FIELD("Pss", pss);
		MF_FIELD("Shared_Clean", shared_clean);
		MF_FIELD("Shared_Dirty", shared_dirty);
		MF_FIELD("Private_Clean", private_clean);
		MF_FIELD("Private_Dirty", private_dirty);
		MF_FIELD("Anonymous", anonymous);
		MF_FIELD("AnonHugePages", anon_huge);
		MF_FIELD("Locked", locked);
#undef MF_FIELD
		if (!strncmp(line, "VmFlags:", 8))
			snprintf(a->flags, sizeof(a->flags), " %.253s ", line + 8);
	}
	close(l.fd);
	return in;
}

/* mf_need_area is mf_area_of that fails where nothing is mapped. */
static CONF_UNUSED void mf_need_area(const void *addr, struct mf_area *a, const char *what)
{
	CHECK(mf_area_of(addr, a), "%s: nothing is mapped at %p", what, addr);
}

/* mf_has_flag says whether VmFlags has the two-letter flag. */
static CONF_UNUSED bool mf_has_flag(const struct mf_area *a, const char *flag)
{
	char f[8];

	snprintf(f, sizeof(f), " %s ", flag);
	return strstr(a->flags, f) != NULL;
}

/*
 * mf_same_area fails unless range, permissions, offset and flags are the same,
 * but for "sd" (soft-dirty, a tracker's own) and "ac" (whether the memory was
 * ever charged, which depends on the order of mprotect calls).
 */
static CONF_UNUSED void mf_plain_flags(char *to, const char *from)
{
	char word[4];
	int n;

	for (*to = 0; sscanf(from, " %3s%n", word, &n) == 1; from += n)
		if (strcmp(word, "sd") && strcmp(word, "ac"))
			to += sprintf(to, "%s ", word);
}

static CONF_UNUSED void mf_same_area(const struct mf_area *now, const struct mf_area *was, const char *what)
{
	char a[256], b[256];

	CHECK(now->start == was->start && now->end == was->end, "%s: area is %lx-%lx, was %lx-%lx", what,
	      now->start, now->end, was->start, was->end);
	CHECK(!strcmp(now->perms, was->perms), "%s: permissions are %s, were %s", what, now->perms, was->perms);
	CHECK(!was->name[0] || now->off == was->off, "%s: offset is %lx, was %lx", what, now->off, was->off);
	mf_plain_flags(a, now->flags);
	mf_plain_flags(b, was->flags);
	CHECK(!strcmp(a, b), "%s: flags are \"%s\", were \"%s\"", what, a, b);
}

/* mf_pagemap is the word of /proc/self/pagemap for an address. */
#define MF_PM_PRESENT (1ULL << 63)
#define MF_PM_SWAPPED (1ULL << 62)
#define MF_PM_FILE (1ULL << 61)
#define MF_PM_EXCLUSIVE (1ULL << 56)
static CONF_UNUSED uint64_t mf_pagemap(const void *addr)
{
	int fd = SYS(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
	uint64_t v = 0;

	CHECK(pread(fd, &v, 8, (uintptr_t)addr / PAGE * 8) == 8, "pagemap: %s", strerror(errno));
	close(fd);
	return v;
}

static CONF_UNUSED bool mf_touched(const void *addr)
{
	return mf_pagemap(addr) & (MF_PM_PRESENT | MF_PM_SWAPPED);
}

/*
 * The map of the program as text, without what may differ: where the stack
 * begins, and the inode of what has no name.
 */
struct mf_map {
	size_t n, lines;
	char text[1 << 20];
};

static CONF_UNUSED void mf_map_read(struct mf_map *m)
{
	struct mf_lines l;
	char line[1024];

	m->n = m->lines = 0;
	mf_lines_open(&l, "/proc/self/maps");
	while (mf_line(&l, line, sizeof(line))) {
		uint64_t s, e, off;
		char perms[8], dev[16];
		unsigned long ino;
		int pos = 0;
		const char *name;

		CHECK(sscanf(line, "%lx-%lx %7s %lx %15s %lu%n", &s, &e, perms, &off, dev, &ino, &pos) >= 6,
		      "map line %s", line);
		name = line + pos;
		while (*name == ' ')
			name++;
		if (strstr(name, "(deleted)"))
			ino = 0;
		if (!strcmp(name, "[stack]"))
			s = 0;
		m->n += snprintf(m->text + m->n, sizeof(m->text) - m->n, "%lx-%lx %s %lx %lu %s\n", s, e, perms, off,
				 ino, name);
		CHECK(m->n < sizeof(m->text), "the map is too large");
		m->lines++;
	}
	close(l.fd);
}

/* mf_map_merge makes neighbours of unnamed private memory one line. */
static CONF_UNUSED void mf_map_merge(struct mf_map *m)
{
	char *from = m->text, *to = m->text, *last = NULL;
	uint64_t ls = 0, le = 0;
	char lp[8] = "";

	m->lines = 0;
	while (*from) {
		size_t n = strcspn(from, "\n") + 1;
		uint64_t s, e;
		char perms[8];

		sscanf(from, "%lx-%lx %7s", &s, &e, perms);
		bool plain = perms[3] == 'p' && from[n - 2] == ' ';	/* no name */

		if (plain && last && s == le && !strcmp(lp, perms)) {
			le = e;
			to = last + sprintf(last, "%lx-%lx %s 0 0 ", ls, le, perms);
			*to++ = '\n';
		} else {
			last = plain ? to : NULL;
			ls = s;
			le = e;
			strcpy(lp, perms);
			memmove(to, from, n);
			to += n;
			m->lines++;
		}
		from += n;
	}
	*to = 0;
	m->n = to - m->text;
}

/* mf_map_same fails with the first line that differs. */
static CONF_UNUSED void mf_map_same(const struct mf_map *now, const struct mf_map *was)
{
	const char *a = now->text, *b = was->text;

	while (*a && *b) {
		size_t n = strcspn(a, "\n"), k = strcspn(b, "\n");

		CHECK(n == k && !memcmp(a, b, n), "the map has \"%.*s\" where it had \"%.*s\" (%zu lines, had %zu)", (int)n,
		      a, (int)k, b, now->lines, was->lines);
		a += n + 1;
		b += k + 1;
	}
	CHECK(!*a && !*b, "the map has %zu lines, had %zu", now->lines, was->lines);
}

/* mf_fault reads or writes one byte and tells which signal that gave. */
struct mf_fault {
	int sig, code;
	void *addr;
};

static struct mf_fault mf_last CONF_UNUSED;
static sigjmp_buf mf_jump CONF_UNUSED;

static CONF_UNUSED void mf_on_fault(int sig, siginfo_t *si, void *uc)
{
	mf_last.sig = sig;
	mf_last.code = si->si_code;
	mf_last.addr = si->si_addr;
	siglongjmp(mf_jump, 1);
}

static CONF_UNUSED struct mf_fault mf_touch(volatile void *addr, bool write)
{
	struct sigaction sa = { .sa_sigaction = mf_on_fault, .sa_flags = SA_SIGINFO }, segv, bus;
	volatile char *p = addr;

	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGBUS, &sa, &bus);
	memset(&mf_last, 0, sizeof(mf_last));
	if (!sigsetjmp(mf_jump, 1)) {
		if (write)
			*p = *p + 1;
		else
			(void)*p;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGBUS, &bus, NULL);
	return mf_last;
}

/* mf_faults fails unless touching addr gives exactly this signal there. */
static CONF_UNUSED void mf_faults(volatile void *addr, bool write, int sig, int code, const char *what)
{
	struct mf_fault f = mf_touch(addr, write);

	CHECK(f.sig == sig && (!sig || (f.code == code && f.addr == addr)),
	      "%s: touching %p gives signal %d code %d at %p, not %d code %d", what, addr, f.sig, f.code, f.addr, sig,
	      code);
}

/* mf_link is where /proc/self/fd/FD points. */
static CONF_UNUSED void mf_link(int fd, char *buf, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, buf, size - 1);
	CHECK(n >= 0, "%s: %s", path, strerror(errno));
	buf[n] = 0;
}

/* mf_same_file says whether two descriptors are one open file description. */
static CONF_UNUSED bool mf_same_file(pid_t p1, int f1, pid_t p2, int f2)
{
	long r = syscall(SYS_kcmp, p1, p2, 0 /* KCMP_FILE */, (long)f1, (long)f2);

	CHECK(r >= 0, "kcmp: %s", strerror(errno));
	return r == 0;
}

/* mf_fdinfo reads a field of /proc/self/fdinfo/FD; false if it isn't there. */
static CONF_UNUSED bool mf_fdinfo(int fd, const char *key, char *val, size_t size)
{
	struct mf_lines l;
	char path[64], line[1024];
	size_t k = strlen(key);
	bool found = false;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	mf_lines_open(&l, path);
	while (mf_line(&l, line, sizeof(line)))
		if (!strncmp(line, key, k) && line[k] == ':') {
			const char *v = line + k + 1;

			while (*v == ' ' || *v == '\t')
				v++;
			snprintf(val, size, "%s", v);
			found = true;
			break;
		}
	close(l.fd);
	return found;
}

/* mf_send_fds sends descriptors over a unix socket, with len bytes of data. */
static CONF_UNUSED void mf_send_fds(int sk, const int *fds, int n, const void *data, size_t len)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * 32)];
		struct cmsghdr align;
	} u;
	struct iovec iov = { (void *)data, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf,
			    .msg_controllen = CMSG_SPACE(sizeof(int) * n) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	memset(&u, 0, sizeof(u));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * n);
	memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
	CHECK(sendmsg(sk, &m, 0) == (ssize_t)len, "sendmsg with descriptors: %s", strerror(errno));
}

/*
 * mf_recv_fds receives one message; it gives the number of bytes, and exactly
 * n descriptors or it fails.
 */
static CONF_UNUSED ssize_t mf_recv_fds(int sk, int *fds, int n, void *data, size_t len, int flags)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * 32)];
		struct cmsghdr align;
	} u;
	struct iovec iov = { data, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf, .msg_controllen = sizeof(u.buf) };
	ssize_t r = recvmsg(sk, &m, flags);
	int got = 0;

	CHECK(r >= 0, "recvmsg: %s", strerror(errno));
	CHECK(!(m.msg_flags & MSG_CTRUNC), "recvmsg: descriptors are cut off");
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			int k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

			CHECK(got + k <= n, "a message carries %d descriptors, not %d", got + k, n);
			memcpy(fds + got, CMSG_DATA(c), k * sizeof(int));
			got += k;
		}
	CHECK(got == n, "a message carries %d descriptors, not %d", got, n);
	return r;
}

#endif
