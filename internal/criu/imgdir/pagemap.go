package imgdir

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// ParentName is the link in an image directory to the one it builds upon.
const ParentName = "parent"

// deepest is how many directories may build upon one another: a chain that is
// longer is a ring.
const deepest = 1000

// pagemap reads a pagemap into runs of the store. Pages that lie in the parent
// directory are looked up there.
func (s *Source) pagemap(dir, name string, depth int) (*fm.PageRuns, error) {
	out := &fm.PageRuns{}
	if depth > deepest {
		return nil, fault.Errorf(fault.ErrDamaged, "%s: too many directories build upon one another", dir)
	}
	r, err := open(dir, name, "PAGEMAP")
	if r == nil || err != nil {
		return out, err
	}
	defer r.close()
	head := &pagemap.PagemapHead{}
	if ok, err := r.next(head); err != nil || !ok {
		return out, err
	}
	var base, at, size uint64
	opened := false
	var below *fm.PageRuns
	for {
		e := &pagemap.PagemapEntry{}
		ok, err := r.next(e)
		if err != nil {
			return nil, err
		}
		if !ok {
			return out, nil
		}
		pages := e.GetNrPages()
		if e.NrPages == nil {
			pages = uint64(e.GetCompatNrPages())
		}
		flags := e.GetFlags()
		if e.Flags == nil {
			flags = pagePresent
			if e.GetInParent() {
				flags = pageParent
			}
		}
		switch {
		case flags&pageParent != 0:
			if below == nil {
				// The kernel follows 40 links; a chain may be longer.
				parent, err := filepath.EvalSymlinks(filepath.Join(dir, ParentName))
				if err != nil {
					return nil, fault.Errorf(fault.ErrDamaged, "%s: pages are in another directory: %w", r.name, err)
				}
				if below, err = s.pagemap(parent, name, depth+1); err != nil {
					return nil, err
				}
			}
			if err := inherit(out, below, e.GetVaddr(), pages); err != nil {
				return nil, fault.Errorf(fault.ErrDamaged, "%s: %w", r.name, err)
			}
		case flags&pagePresent != 0:
			if !opened {
				opened = true
				if base, size, err = s.pagesFile(filepath.Join(dir, fmt.Sprintf("pages-%d.img", head.GetPagesId()))); err != nil {
					return nil, err
				}
			}
			if at+pages*sys.PageSize > size {
				return nil, fault.Errorf(fault.ErrDamaged, "%s: its pages file has only %d bytes", r.name, size)
			}
			add(out, e.GetVaddr(), base+at, pages)
			at += pages * sys.PageSize
		}
	}
}

// pagesFile gives where a pages file begins in the store, and its size.
func (s *Source) pagesFile(path string) (base, size uint64, err error) {
	if b, ok := s.bases[path]; ok {
		st, err := os.Stat(path)
		if err != nil {
			return 0, 0, err
		}
		return b, uint64(st.Size()), nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return 0, 0, fault.Wrap(fault.ErrDamaged, err)
	}
	s.bases[path] = s.size
	s.stores = append(s.stores, path)
	base = s.size
	s.size += uint64(st.Size())
	return base, uint64(st.Size()), nil
}

func add(r *fm.PageRuns, at, off, pages uint64) {
	if l := len(r.Vaddr) - 1; l >= 0 && r.Vaddr[l]+r.Pages[l]*sys.PageSize == at && r.Off[l]+r.Pages[l]*sys.PageSize == off {
		r.Pages[l] += pages
		return
	}
	r.Vaddr, r.Off, r.Pages = append(r.Vaddr, at), append(r.Off, off), append(r.Pages, pages)
}

// inherit adds pages of the parent directory.
func inherit(out, below *fm.PageRuns, at, pages uint64) error {
	for pages > 0 {
		i := sort.Search(len(below.Vaddr), func(i int) bool { return below.Vaddr[i]+below.Pages[i]*sys.PageSize > at })
		if i == len(below.Vaddr) || below.Vaddr[i] > at {
			return fmt.Errorf("page %#x is not in the parent directory", at)
		}
		skip := (at - below.Vaddr[i]) / sys.PageSize
		n := min(pages, below.Pages[i]-skip)
		add(out, at, below.Off[i]+skip*sys.PageSize, n)
		at, pages = at+n*sys.PageSize, pages-n
	}
	return nil
}

// share finds the pages that a child has in common with its parent: the
// directory has them twice. A restore maps what has the same offset once,
// copy-on-write.
func (s *Source) share() error {
	entries, err := image.All[*pstree.PstreeEntry](s.Image, "pstree")
	if err != nil {
		return err
	}
	runs := map[uint32]*fm.PageRuns{}
	for _, e := range entries {
		all, err := image.All[*fm.PageRuns](s.Image, image.Of("pages", int(e.GetPid())))
		if err != nil {
			return err
		}
		if len(all) != 1 {
			continue
		}
		mine := all[0]
		if parent := runs[e.GetPpid()]; parent != nil {
			shared, err := s.common(mine, parent)
			if err != nil {
				return err
			}
			mine = shared
			s.Image.Replace(image.Of("pages", int(e.GetPid())), mine)
		}
		runs[e.GetPid()] = mine
	}
	return nil
}

// common gives a's runs, with b's offsets where both have the same page at the
// same address.
func (s *Source) common(a, b *fm.PageRuns) (*fm.PageRuns, error) {
	out := &fm.PageRuns{}
	ra, rb := s.Store.NewReader(), s.Store.NewReader()
	defer ra.Close()
	defer rb.Close()
	j := 0
	for i, at := range a.Vaddr {
		off, end := a.Off[i], at+a.Pages[i]*sys.PageSize
		for at < end {
			for j < len(b.Vaddr) && b.Vaddr[j]+b.Pages[j]*sys.PageSize <= at {
				j++
			}
			n := end - at
			if j == len(b.Vaddr) || b.Vaddr[j] >= end {
				add(out, at, off, n/sys.PageSize)
				break
			}
			if b.Vaddr[j] > at { // up to there it is a's alone
				n = b.Vaddr[j] - at
				add(out, at, off, n/sys.PageSize)
				at, off = at+n, off+n
				continue
			}
			other := b.Off[j] + at - b.Vaddr[j]
			n = min(n, b.Vaddr[j]+b.Pages[j]*sys.PageSize-at)
			x, err := ra.At(off, n)
			if err != nil {
				return nil, err
			}
			y, err := rb.At(other, uint64(len(x)))
			if err != nil {
				return nil, err
			}
			n = uint64(len(y))
			for k := uint64(0); k < n; k += sys.PageSize {
				from := off + k
				if bytes.Equal(x[k:k+sys.PageSize], y[k:k+sys.PageSize]) {
					from = other + k
				}
				add(out, at+k, from, 1)
			}
			at, off = at+n, off+n
		}
	}
	return out, nil
}
