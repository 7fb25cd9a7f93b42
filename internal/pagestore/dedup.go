package pagestore

import (
	"bytes"
	"hash/maphash"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/sys"
)

// Equal pages are found by a hash of 64 bits, which needs not be a good one: the
// bytes of both are compared before one of them is left out. The second reading
// of the first page costs no more than writing the other would have.

// pageTable knows the pages that are being written by their hashes.
type pageTable struct {
	seed   maphash.Seed
	src    Source
	shards [64]struct {
		sync.Mutex
		off map[uint64]uint64
	}
}

func newPageTable(src Source) *pageTable {
	t := &pageTable{seed: maphash.MakeSeed(), src: src}
	for i := range t.shards {
		t.shards[i].off = map[uint64]uint64{}
	}
	return t
}

// see gives the page that was seen first with a hash; ok is false when that is
// this one.
func (t *pageTable) see(h, off uint64) (first uint64, ok bool) {
	s := &t.shards[h%uint64(len(t.shards))]
	s.Lock()
	defer s.Unlock()
	if first, ok = s.off[h]; !ok {
		s.off[h] = off
	}
	return first, ok
}

// equal finds those pages of a piece, of the ones to be written, that are equal
// to others seen before.
func (w *writer) equal(off uint64, b []byte) (any bool, err error) {
	var first, last int // a run of pages that seem to be equal to a run of others
	var of uint64       // where the others begin
	check := func() error {
		for first < last {
			n := min(last-first, Chunk/sys.PageSize)
			if w.scratch == nil {
				if w.scratch, err = unix.Mmap(-1, 0, Chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
					return err
				}
			}
			theirs := w.scratch[:n*sys.PageSize]
			if err := w.seen.src(of, theirs); err != nil {
				return err
			}
			for i := range n {
				at := (first + i) * sys.PageSize
				if bytes.Equal(theirs[i*sys.PageSize:(i+1)*sys.PageSize], b[at:at+sys.PageSize]) {
					w.to[first+i], any = again+of+uint64(i)*sys.PageSize, true
				}
			}
			first, of = first+n, of+uint64(n)*sys.PageSize
		}
		return nil
	}
	for i := range len(b) / sys.PageSize {
		if w.to[i] != 0 {
			continue
		}
		h := maphash.Bytes(w.seen.seed, b[i*sys.PageSize:(i+1)*sys.PageSize])
		other, ok := w.seen.see(h, off+uint64(i)*sys.PageSize)
		if !ok {
			continue
		}
		if first < last && last == i && of+uint64(i-first)*sys.PageSize == other {
			last++
			continue
		}
		if err := check(); err != nil {
			return false, err
		}
		first, last, of = i, i+1, other
	}
	return any, check()
}

// resolve finds out where pages lie that are equal to others.
func resolve(moves []move) []move {
	out := make([]move, 0, len(moves))
	put := func(m move) {
		if l := len(out) - 1; l >= 0 && out[l].from+out[l].len == m.from && out[l].to+out[l].len == m.to && m.to < again {
			out[l].len += m.len
			return
		}
		out = append(out, m)
	}
	byFrom := func(i int, off uint64) bool { return moves[i].from+moves[i].len > off }
	for _, m := range moves {
		if m.to < again || m.to >= Below {
			put(m)
			continue
		}
		// The others were written, all of them, but perhaps not one after another.
		for off := m.to - again; m.len > 0; {
			o := moves[sort.Search(len(moves), func(i int) bool { return byFrom(i, off) })]
			skip := off - o.from
			n := min(m.len, o.len-skip)
			put(move{m.from, n, o.to + skip})
			m.from, m.len, off = m.from+n, m.len-n, off+n
		}
	}
	return out
}
