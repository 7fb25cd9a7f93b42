package lazy

import (
	"slices"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/sys"
)

const pageSize = sys.PageSize

// space is an address space and the pages that it still lacks.
//
// The kernel holds up fork, mremap, munmap and madvise until their event was
// read, and answers EAGAIN to every copy from the moment they begin. So a page
// must not be counted as there by a copy from before an event when the event is
// looked at as if it came after: events are read and applied with mu held for
// writing, pages are put and counted with mu held for reading. A fork's child
// then lacks exactly what its parent lacked when the event was read.
type space struct {
	uffd int
	mu   sync.RWMutex
	// runs stay in ascending order of address; only events change them.
	runs []pages
	// version counts changes of runs.
	version int

	bits sync.Mutex
	done bitmap // by pages.first; guarded by bits
	left int    // pages that are not done
	// next is where the background goes on.
	nextRun, nextPage int

	dead bool // the address space is gone; guarded by bits
}

// pages is a run: n pages at an address, in the store from off on; first is the
// number of its first page in the bitmap.
type pages struct {
	at, off uint64
	n       int
	first   int
}

func (p *pages) end() uint64 { return p.at + uint64(p.n)*pageSize }

type bitmap []uint64

func (b bitmap) get(i int) bool { return b[i/64]>>(i%64)&1 != 0 }
func (b bitmap) set(i int)      { b[i/64] |= 1 << (i % 64) }

func newSpace(s *Space) *space {
	n := &space{uffd: s.Uffd}
	for _, r := range s.Runs {
		k := int(r.Len / pageSize)
		n.runs = append(n.runs, pages{at: r.At, off: r.Off, n: k, first: n.left})
		n.left += k
	}
	n.done = make(bitmap, n.left/64+1)
	return n
}

// forked gives the space of a child that was forked just now.
func (s *space) forked(uffd int) *space {
	s.bits.Lock()
	defer s.bits.Unlock()
	return &space{uffd: uffd, runs: slices.Clone(s.runs), done: slices.Clone(s.done), left: s.left, dead: s.dead}
}

// find gives the run that an address is in.
func (s *space) find(at uint64) *pages {
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].end() > at })
	if i < len(s.runs) && s.runs[i].at <= at {
		return &s.runs[i]
	}
	return nil
}

// missing gives pages that are not done, from page i of a run on, at most n.
func (s *space) missing(r *pages, i, n int) (k int) {
	s.bits.Lock()
	defer s.bits.Unlock()
	for k < n && i+k < r.n && !s.done.get(r.first+i+k) {
		k++
	}
	return k
}

// settle counts k pages of a run as done.
func (s *space) settle(r *pages, i, k int) {
	s.bits.Lock()
	defer s.bits.Unlock()
	for ; k > 0; i, k = i+1, k-1 {
		if !s.done.get(r.first + i) {
			s.done.set(r.first + i)
			s.left--
		}
	}
}

// drop forgets the pages of a range: the program has thrown them away.
func (s *space) drop(start, end uint64) {
	i := sort.Search(len(s.runs), func(i int) bool { return s.runs[i].end() > start })
	for ; i < len(s.runs) && s.runs[i].at < end; i++ {
		r := &s.runs[i]
		from, to := max(start, r.at), min(end, r.end())
		s.settle(r, int((from-r.at)/pageSize), int((to-from+pageSize-1)/pageSize))
	}
}

// move follows a mremap(2).
func (s *space) move(from, to, n uint64) {
	s.drop(to, to+n) // what was there is gone
	var out []pages
	for _, r := range s.runs {
		// The parts before, in and behind the range.
		for _, cut := range [2]uint64{from, from + n} {
			if r.at < cut && cut < r.end() {
				k := int((cut - r.at) / pageSize)
				head := r
				head.n = k
				if head.at >= from && head.at < from+n {
					head.at += to - from
				}
				out = append(out, head)
				r = pages{at: r.at + uint64(k)*pageSize, off: r.off + uint64(k)*pageSize, n: r.n - k, first: r.first + k}
			}
		}
		if r.at >= from && r.at < from+n {
			r.at += to - from
		}
		out = append(out, r)
	}
	// A run whose pages are all done may stay where others have come to lie.
	out = slices.DeleteFunc(out, func(r pages) bool { return s.missingAny(&r) == 0 })
	slices.SortFunc(out, func(a, b pages) int {
		if a.at < b.at {
			return -1
		}
		return 1
	})
	s.runs = s.apart(out)
	s.version++
	s.nextRun, s.nextPage = 0, 0
}

// missingAny counts the pages of a run that are not done.
func (s *space) missingAny(r *pages) (n int) {
	s.bits.Lock()
	defer s.bits.Unlock()
	for i := range r.n {
		if !s.done.get(r.first + i) {
			n++
		}
	}
	return n
}

// apart cuts runs that overlap into those of their pages that are missing, of
// which no two are the same.
func (s *space) apart(runs []pages) []pages {
	for i := 1; i < len(runs); i++ {
		if runs[i-1].end() > runs[i].at {
			var out []pages
			for _, r := range runs {
				for i := 0; i < r.n; {
					k := s.missing(&r, i, r.n)
					if k > 0 {
						d := uint64(i) * pageSize
						out = append(out, pages{at: r.at + d, off: r.off + d, n: k, first: r.first + i})
					}
					i += max(k, 1)
				}
			}
			slices.SortFunc(out, func(a, b pages) int {
				if a.at < b.at {
					return -1
				}
				return 1
			})
			return out
		}
	}
	return runs
}

// claim gives the background a piece to bring in: what is left of a run up to
// the end of a chunk of the store, so that no two read the same chunk.
func (s *space) claim() (at uint64, n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.bits.Lock()
	defer s.bits.Unlock()
	if s.left == 0 || s.dead {
		return 0, 0
	}
	for range 2 { // a second time for what was put off
		for ; s.nextRun < len(s.runs); s.nextRun, s.nextPage = s.nextRun+1, 0 {
			r := &s.runs[s.nextRun]
			for ; s.nextPage < r.n; s.nextPage++ {
				if !s.done.get(r.first + s.nextPage) {
					at = r.at + uint64(s.nextPage)*pageSize
					inChunk := int((r.off/pageSize + uint64(s.nextPage)) % chunkPages)
					n = min(chunkPages-inChunk, r.n-s.nextPage)
					s.nextPage += n
					return at, n
				}
			}
		}
		s.nextRun, s.nextPage = 0, 0
	}
	return 0, 0
}

const chunkPages = pagestore.Chunk / pageSize

// outcome of an attempt to bring a page in.
type outcome int

const (
	there   outcome = iota // it is there
	absent                 // the page is not one that is missing: it is zero
	changes                // an event is to be read first
	gone                   // the address space is gone
)

// bring brings the page at an address in, and those after it, at most n.
func (s *space) bring(rd *pagestore.Reader, at uint64, n int) (outcome, error) {
	s.mu.RLock()
	r := s.find(at)
	if r == nil {
		s.mu.RUnlock()
		return absent, nil
	}
	i := int((at - r.at) / pageSize)
	k := s.missing(r, i, n)
	off, version := r.off+uint64(i)*pageSize, s.version
	s.mu.RUnlock()
	if k == 0 {
		return absent, nil
	}
	// The store may be slow: the program's events must not wait for it.
	d, err := rd.At(off, uint64(k)*pageSize)
	if err != nil {
		return there, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.version != version {
		return changes, nil
	}
	if r = s.find(at); r == nil {
		return absent, nil
	}
	k = s.missing(r, i, len(d)/pageSize)
	for done := 0; done < k; {
		put, err := sys.UffdCopy(s.uffd, at+uint64(done)*pageSize, d[done*pageSize:k*pageSize])
		s.settle(r, i+done, put/pageSize)
		done += put / pageSize
		switch err {
		case nil:
		case unix.EEXIST:
			// Another goroutine was here first. Who waits must be woken.
			_ = sys.UffdWake(s.uffd, at+uint64(done)*pageSize, pageSize)
			s.settle(r, i+done, 1)
			done++
		case unix.EAGAIN:
			if put == 0 {
				return changes, nil
			}
		case unix.ENOENT:
			// No area of ours: a child that was not given it (MADV_DONTFORK).
			s.settle(r, i+done, 1)
			done++
		case unix.ESRCH:
			s.die()
			return gone, nil
		default:
			return there, err
		}
	}
	return there, nil
}

// zero gives a page its zeros that never had content, or no longer has.
func (s *space) zero(at uint64) (outcome, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r := s.find(at); r != nil && s.missing(r, int((at-r.at)/pageSize), 1) > 0 {
		return changes, nil
	}
	switch _, err := sys.UffdZero(s.uffd, at, pageSize); err {
	case nil:
		return there, nil
	case unix.EAGAIN:
		return changes, nil
	case unix.EEXIST, unix.ENOENT:
		_ = sys.UffdWake(s.uffd, at, pageSize)
		return there, nil
	case unix.ESRCH:
		s.die()
		return gone, nil
	default:
		return there, err
	}
}

func (s *space) die() {
	s.bits.Lock()
	defer s.bits.Unlock()
	s.dead = true
}

// complete tells whether nothing is missing any more.
func (s *space) complete() bool {
	s.bits.Lock()
	defer s.bits.Unlock()
	return s.left == 0 || s.dead
}
