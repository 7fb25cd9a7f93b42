package resource

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// fileSet holds descriptions that look alike, in the kernel's own order (kcmp(2),
// KCMP_FILE). It is cut into short runs: a program may have ten thousand of
// /dev/null, and each new one would else move half of them.
type fileSet [][]fileRef

// fileRef has what kcmp needs beside the file itself, so that a search touches
// no more memory than it must.
type fileRef struct {
	pid, fd int
	f       *File
}

const longestRun = 256

// find gives the description that n is, or its place: run and index.
func (s fileSet) find(n *File) (same *File, run, at int, err error) {
	lo, hi := 0, len(s) // the run whose first element is the last one not above n
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		c, err := n.compare(&s[m][0])
		switch {
		case err != nil:
			return nil, 0, 0, err
		case c == 0:
			return s[m][0].f, 0, 0, nil
		case c < 0:
			hi = m
		default:
			lo = m + 1
		}
	}
	if lo == 0 {
		return nil, 0, 0, nil
	}
	run = lo - 1
	lo, hi = 1, len(s[run])
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		c, err := n.compare(&s[run][m])
		switch {
		case err != nil:
			return nil, 0, 0, err
		case c == 0:
			return s[run][m].f, 0, 0, nil
		case c < 0:
			hi = m
		default:
			lo = m + 1
		}
	}
	return nil, run, lo, nil
}

// insert puts n where find said.
func (s fileSet) insert(n *File, run, at int) fileSet {
	ref := fileRef{n.PID, n.FD, n}
	if len(s) == 0 {
		return fileSet{{ref}}
	}
	r := slices.Insert(s[run], at, ref)
	if len(r) > longestRun {
		half := len(r) / 2
		s = slices.Insert(s, run+1, slices.Clone(r[half:]))
		r = slices.Delete(r, half, len(r))
	}
	s[run] = r
	return s
}

// compare orders two descriptions: below 0 when f comes first, 0 for the same.
func (f *File) compare(o *fileRef) (int, error) {
	c, err := sys.Kcmp(f.PID, o.pid, sys.KcmpFile, f.FD, o.fd)
	if err != nil {
		return 0, fmt.Errorf("kcmp of pid %d fd %d and pid %d fd %d: %w", f.PID, f.FD, o.pid, o.fd, err)
	}
	switch c {
	case 0:
		return 0, nil
	case 1:
		return -1, nil
	}
	return 1, nil
}

// dirCache keeps the directories of paths that are looked up one after another:
// a descriptor makes the rest of the way short. A directory is opened when it is
// met a second time.
type dirCache struct {
	fds  map[string]int // -1: met once
	last string
	fd   int
	path string // of the last lstat, and what it gave
	st   unix.Stat_t
	err  error
}

const mostDirs = 200

// at gives a directory's descriptor and a name in it for a path; AT_FDCWD and
// the whole path when that is the best.
func (c *dirCache) at(path string) (int, string) {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 || i == len(path)-1 {
		return unix.AT_FDCWD, path
	}
	dir, base := path[:i], path[i+1:]
	if dir == c.last {
		return c.fd, base
	}
	fd, met := c.fds[dir]
	switch {
	case !met:
		if c.fds == nil {
			c.fds = map[string]int{}
		}
		if len(c.fds) < 10*mostDirs {
			c.fds[dir] = -1
		}
		return unix.AT_FDCWD, path
	case fd < 0:
		if len(c.fds) > mostDirs {
			return unix.AT_FDCWD, path
		}
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS}
		fd, err := unix.Openat2(unix.AT_FDCWD, dir, &how)
		if err != nil {
			return unix.AT_FDCWD, path
		}
		c.fds[dir] = fd
		c.last, c.fd = dir, fd
		return fd, base
	}
	c.last, c.fd = dir, fd
	return fd, base
}

// lstat is lstat(2) of a path; of one that was just asked for, it gives the same
// again.
func (c *dirCache) lstat(path string, st *unix.Stat_t) error {
	if path != c.path {
		fd, name := c.at(path)
		c.err = unix.Fstatat(fd, name, &c.st, unix.AT_SYMLINK_NOFOLLOW)
		c.path = path
	}
	*st = c.st
	return c.err
}

func (c *dirCache) close() {
	for _, fd := range c.fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	*c = dirCache{}
}
