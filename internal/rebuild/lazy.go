package rebuild

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/lazy"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// A lazy restore leaves pages out, in areas where a fault can be answered from
// outside: private anonymous memory of its own. These come before the program
// runs, as always:
//
//   - pages that several address spaces share, which only a fork can share again;
//   - areas that were inherited, that a fork treats specially, that are locked,
//     that grow downwards (stacks), or that hold little;
//   - memory of files and shared memory, which others reach by other ways;
//   - what each thread needs for its first step.

// lazyFrom is how much an area must hold to be left out.
const lazyFrom = 8 << 10

// startLazy starts the handler, if pages may be left out.
func (b *builder) startLazy() error {
	if !b.opt.Lazy {
		return nil
	}
	err := lazy.Available()
	if b.opt.Store != nil {
		err = errors.New("its pages are not in a store of fermata's")
	}
	if err != nil {
		b.note("not lazily: %v: all memory was in place before the program went on", err)
		return nil
	}
	if b.lazy, err = lazy.Start(); err != nil {
		return err
	}
	b.findShared()
	return nil
}

// findShared finds the parts of the store that several address spaces have.
func (b *builder) findShared() {
	type edge struct {
		at    uint64
		owner int
		open  bool
	}
	var edges []edge
	for i, p := range b.procs {
		r := p.pages
		for k := range r.GetVaddr() {
			if r.GetOff()[k] >= pagestore.Zero {
				continue
			}
			edges = append(edges, edge{r.GetOff()[k], i, true}, edge{r.GetOff()[k] + r.GetPages()[k]*sys.PageSize, i, false})
		}
	}
	slices.SortFunc(edges, func(x, y edge) int { return cmp.Compare(x.at, y.at) })
	depth := map[int]int{} // owner -> open runs
	var from uint64
	for _, e := range edges {
		if len(depth) > 1 && e.at > from {
			b.sharedOff = append(b.sharedOff, span{from, e.at - from})
		}
		from = e.at
		if e.open {
			depth[e.owner]++
		} else if depth[e.owner]--; depth[e.owner] == 0 {
			delete(depth, e.owner)
		}
	}
}

// lazyArea tells whether pages of an area of p may come later.
func (b *builder) lazyArea(p *proc, a *area) bool {
	const eager = procfs.VMLocked | procfs.VMLockOnFault | procfs.VMDontCopy | procfs.VMWipeOnFork | procfs.VMGrowsDown
	if b.lazy == nil || !a.fresh() || a.flags()&eager != 0 || p.mmx.GetMlockFuture() != 0 {
		return false
	}
	v := p.pages.GetVaddr()
	i := sort.Search(len(v), func(i int) bool { return v[i]+p.pages.GetPages()[i]*sys.PageSize > a.GetStart() })
	var n uint64
	for ; i < len(v) && v[i] < a.GetEnd() && n < lazyFrom; i++ {
		n += min(v[i]+p.pages.GetPages()[i]*sys.PageSize, a.GetEnd()) - max(v[i], a.GetStart())
	}
	return n >= lazyFrom
}

// split divides a piece into what is shared and what only one address space
// has.
func (b *builder) split(x piece, shared, own func(piece)) {
	i := sort.Search(len(b.sharedOff), func(i int) bool { return b.sharedOff[i].at+b.sharedOff[i].len > x.off })
	for x.n > 0 {
		n, f := x.n, own
		if i < len(b.sharedOff) {
			if s := b.sharedOff[i]; s.at <= x.off {
				n, f = min(n, s.at+s.len-x.off), shared
				i++
			} else {
				n = min(n, s.at-x.off)
			}
		}
		f(piece{x.at, n, x.off})
		x = piece{x.at + n, x.n - n, x.off + n}
	}
}

// hot gives the pages that a process's threads need at once.
func (p *proc) hot() []uint64 {
	var out []uint64
	for _, o := range p.b.procs {
		if o.zombie || o.vmOwner != p {
			continue
		}
		for _, t := range o.threads {
			for _, at := range firstTouched(t.core) {
				out = append(out, at&^(sys.PageSize-1))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// leave notes a piece for later, but for pages that are hot: these go to now.
func (p *proc) leave(x piece, hot []uint64, now func(piece)) {
	i, _ := slices.BinarySearch(hot, x.at)
	for ; i < len(hot) && hot[i] < x.at+x.n; i++ {
		if d := hot[i] - x.at; d > 0 {
			p.lazy = append(p.lazy, piece{x.at, d, x.off})
			x = piece{x.at + d, x.n - d, x.off + d}
		}
		now(piece{x.at, sys.PageSize, x.off})
		x = piece{x.at + sys.PageSize, x.n - sys.PageSize, x.off + sys.PageSize}
	}
	if x.n > 0 {
		p.lazy = append(p.lazy, x)
	}
}

// handOver registers what was left out and lets the handler answer for it.
func (b *builder) handOver() error {
	if b.lazy == nil {
		return nil
	}
	plan := lazy.Plan{Stores: b.manifest.GetStores(), Files: b.store.Files()}
	defer func() {
		for _, s := range plan.Spaces {
			unix.Close(s.Uffd)
		}
	}()
	for _, p := range b.procs {
		if !p.zombie {
			plan.PIDs = append(plan.PIDs, p.host())
		}
		if len(p.lazy) == 0 {
			continue
		}
		s, err := b.demand(p)
		if err != nil {
			return fmt.Errorf("%s: pages on demand: %w", p.describe(), err)
		}
		plan.Spaces = append(plan.Spaces, *s)
	}
	if len(plan.Spaces) == 0 {
		b.lazy.Close()
		b.lazy = nil
		return nil
	}
	return b.lazy.Hand(&plan)
}

// demand registers the areas of one process that lack pages.
func (b *builder) demand(p *proc) (*lazy.Space, error) {
	fd, err := p.userfaultfd(0)
	if err != nil {
		return nil, err
	}
	s := &lazy.Space{Uffd: fd}
	if err = sys.UffdEnable(fd, lazy.Features); err == nil {
		for _, a := range p.lazyAreas {
			if err = sys.UffdRegister(fd, a.GetStart(), a.GetEnd()-a.GetStart(), sys.UffdMissing); err != nil {
				err = fmt.Errorf("area %#x-%#x: %w", a.GetStart(), a.GetEnd(), err)
				break
			}
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	for _, x := range p.lazy {
		s.Runs = append(s.Runs, lazy.Run{At: x.at, Len: x.n, Off: x.off})
		b.leftOut += int64(x.n)
	}
	return s, nil
}
