package pagestore

import (
	"sort"

	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Settle makes runs point to where their pages came to lie. Those of the parent's
// files that any of them needs come first in the new store, in their order, then
// the new ones; keep gives the numbers of the former.
func (w *Written) Settle(parent *Store, runs []*fm.PageRuns) (files []*fm.StoreFile, keep []int) {
	var shift []uint64 // of each file of the parent: what is added to its offsets
	var base uint64
	if parent != nil {
		used := w.used(parent, runs)
		shift = make([]uint64, len(parent.files))
		for i, f := range parent.files {
			if !used[i] {
				continue
			}
			shift[i] = base - f.base // modulo 2^64
			base += f.GetSize()
			keep = append(keep, i)
			files = append(files, proto.CloneOf(f.StoreFile))
		}
	}
	files = append(files, w.Files...)
	if len(w.moves) == 1 && w.moves[0].to == 0 && parent == nil {
		return files, keep // everything is where it was meant to be
	}
	for _, r := range runs {
		w.settle(r, parent, shift, base)
	}
	return files, keep
}

// used tells which files of the parent are needed.
func (w *Written) used(parent *Store, runs []*fm.PageRuns) []bool {
	used := make([]bool, len(parent.files))
	mark := func(to, n uint64) {
		if to < Below || to >= Zero {
			return
		}
		to -= Below
		for i := parent.find(to); i < len(used) && parent.files[i].base < to+n; i++ {
			used[i] = true
		}
	}
	for _, r := range runs {
		for i, off := range r.GetOff() {
			mark(off, r.GetPages()[i]*sys.PageSize)
		}
	}
	for _, m := range w.moves {
		mark(m.to, m.len)
	}
	return used
}

// settle moves the pages of one list of runs.
func (w *Written) settle(r *fm.PageRuns, parent *Store, shift []uint64, base uint64) {
	out := &fm.PageRuns{}
	// put appends pages that lie together, wherever that is.
	put := func(at, n, to uint64) {
		switch {
		case to >= Zero:
			AppendRun(out, at, Zero+at, n/sys.PageSize)
		case to >= Below:
			for to -= Below; n > 0; {
				i := parent.find(to)
				f := parent.files[i]
				k := min(n, f.base+f.GetSize()-to)
				AppendRun(out, at, to+shift[i], k/sys.PageSize)
				at, n, to = at+k, n-k, to+k
			}
		default:
			AppendRun(out, at, base+to, n/sys.PageSize)
		}
	}
	for i, at := range r.GetVaddr() {
		off, n := r.GetOff()[i], r.GetPages()[i]*sys.PageSize
		if off >= Below {
			put(at, n, off)
			continue
		}
		k := sort.Search(len(w.moves), func(k int) bool { return w.moves[k].from+w.moves[k].len > off })
		for ; n > 0; k++ {
			m := w.moves[k]
			skip := off - m.from
			l := min(n, m.len-skip)
			to := m.to + skip
			if m.to == Zero {
				to = Zero
			}
			put(at, l, to)
			at, off, n = at+l, off+l, n-l
		}
	}
	r.Vaddr, r.Pages, r.Off = out.Vaddr, out.Pages, out.Off
}

// AppendRun adds pages to a list of runs, joining what is adjacent.
func AppendRun(r *fm.PageRuns, addr, off, pages uint64) {
	if pages == 0 {
		return
	}
	if l := len(r.Vaddr) - 1; l >= 0 && r.Vaddr[l]+r.Pages[l]*sys.PageSize == addr && r.Off[l]+r.Pages[l]*sys.PageSize == off {
		r.Pages[l] += pages
		return
	}
	r.Vaddr = append(r.Vaddr, addr)
	r.Pages = append(r.Pages, pages)
	r.Off = append(r.Off, off)
}
