package rebuild

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/procfs"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Pages come into a process in one of two ways, both without its help:
//
//   - UFFDIO_COPY into an area registered with a userfaultfd of its address
//     space: the kernel copies into a new page without clearing it first. It
//     makes small pages only.
//   - process_vm_writev: where pages are there already (inherited by fork), where
//     whole huge pages are wanted, and in areas that userfaultfd cannot register.
//
// Several threads fill at once, each its own share of the store in order.

// piece is a range of an address space and where its content is in the store.
type piece struct{ at, n, off uint64 }

const (
	// fillPiece bounds what one call copies: it fits the second-level cache.
	fillPiece = 1 << 20
	// uffdFrom is how much there must be for a userfaultfd to be worth its
	// making, about 30 µs.
	uffdFrom = 1 << 20
	// uffdArea is how much there must be on an average in each area, which takes
	// some µs to register.
	uffdArea = 64 << 10
	hugeSize = 2 << 20
	// fillVector bounds the ranges of one process_vm_writev (IOV_MAX).
	fillVector = 1024
)

// filling sorts the pieces of a process by the way they take.
type filling struct {
	fresh    []piece // by userfaultfd
	areas    []*area // that fresh pieces are in
	written  []piece // by process_vm_writev
	drops    [][2]uint64
	freshLen uint64
	// run are pieces of an area with huge pages, one after another in the address
	// space, that are not sorted yet.
	run []piece
	// full are the huge pages, by number, that are to be made in the area without
	// the program's having asked for any; collapse is where, in all areas.
	full     map[uint64]bool
	collapse []span
	// small: of the fresh pieces, some are in areas where a write would make a
	// huge page, and fill with zeros what is to come later.
	small bool
}

// fill brings a process's pages into place; those that it inherited with the
// same content are left shared with its parent, those it must not have are
// dropped.
func (b *builder) fill(p, from *proc, kept []bool) error {
	var f filling
	theirs := newCursor(&fm.PageRuns{})
	if from != nil {
		theirs = newCursor(from.pages)
	}
	mine := newCursor(p.pages)
	var hot []uint64
	if b.lazy != nil {
		hot = p.hot()
	}
	for i := range p.areas {
		a := &p.areas[i]
		if a.shared() || a.special() {
			continue
		}
		before := len(f.fresh)
		huge := b.hugeIn(p, a)
		if !huge && !kept[i] && b.hugeDonor && a.fresh() && mayBeHuge(p, a) {
			f.full = b.fullHuge(p, a)
		} else {
			f.full = nil
		}
		late := !kept[i] && b.lazyArea(p, a)
		left := len(p.lazy)
		empty := !kept[i] && a.fresh() && !huge
		err := diff(mine, theirs, a.GetStart(), a.GetEnd(), kept[i] && a.inheritable(), func(at, n, off uint64) error {
			if off >= pagestore.Zero && empty {
				b.filled(int(n)) // zeros is what a new area has
				return nil
			}
			now := func(x piece) { f.add(x, !kept[i] && a.fresh(), huge) }
			if late {
				b.split(piece{at, n, off}, now, func(x piece) {
					if len(p.lazy) == left {
						// One page at least comes at once: neighbouring areas then
						// have an anon_vma in common, without which the kernel
						// would never again make one area of them.
						now(piece{x.at, sys.PageSize, x.off})
						x = piece{x.at + sys.PageSize, x.n - sys.PageSize, x.off + sys.PageSize}
					}
					p.leave(x, hot, now)
				})
			} else {
				now(piece{at, n, off})
			}
			return nil
		}, func(at, n uint64) error {
			f.drops = append(f.drops, [2]uint64{at, n})
			return nil
		})
		if err != nil {
			return err
		}
		f.sortRun()
		for k := range f.full {
			f.collapse = append(f.collapse, span{k * hugeSize, hugeSize})
		}
		if len(f.fresh) > before {
			f.areas = append(f.areas, a)
			f.small = f.small || huge
		}
		if len(p.lazy) > left {
			p.lazyAreas = append(p.lazyAreas, a)
		}
	}
	return b.carryOut(p, &f)
}

// fresh tells whether an area that was mapped just now can be registered with a
// userfaultfd.
func (a *area) fresh() bool {
	return a.is(collect.VMAAnonPrivate) && a.GetFlags()&unix.MAP_HUGETLB == 0 && a.GetFlags()&mapDroppable != mapDroppable
}

// thpAlways: huge pages are made without being asked for.
var thpAlways = sync.OnceValue(func() bool {
	s, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && len(s) > 7 && string(s[:8]) == "[always]"
})

// hugeIn tells whether the program's own touch would have made huge pages in an
// area.
func (b *builder) hugeIn(p *proc, a *area) bool {
	return mayBeHuge(p, a) && (a.flags()&procfs.VMHugePage != 0 || thpAlways())
}

// mayBeHuge tells whether an area has room for huge pages, and the program
// nothing against them.
func mayBeHuge(p *proc, a *area) bool {
	first := (a.GetStart() + hugeSize - 1) &^ (hugeSize - 1)
	return first+hugeSize <= a.GetEnd() && !p.mm.GetThpDisabled() && a.is(collect.VMAAnonPrivate) && a.flags()&procfs.VMNoHugePage == 0
}

// add notes a piece. Of an area with huge pages, whole ones are written, which
// makes them huge; the others are brought in as small pages, so that nothing is
// there that was not.
func (f *filling) add(x piece, fresh, huge bool) {
	if !fresh {
		f.written = append(f.written, x)
		return
	}
	if len(f.full) > 0 {
		for x.n > 0 {
			n := min(x.n, hugeSize-x.at%hugeSize)
			if now := (piece{x.at, n, x.off}); f.full[x.at/hugeSize] {
				f.written = append(f.written, now)
			} else {
				f.put(now)
			}
			x = piece{x.at + n, x.n - n, x.off + n}
		}
		return
	}
	if !huge {
		f.put(x)
		return
	}
	if l := len(f.run); l > 0 && f.run[l-1].at+f.run[l-1].n != x.at {
		f.sortRun()
	}
	f.run = append(f.run, x)
}

// sortRun sorts neighbouring pieces of an area with huge pages: a huge page may
// have its content from several places of the store.
func (f *filling) sortRun() {
	if len(f.run) == 0 {
		return
	}
	last := f.run[len(f.run)-1]
	first := (f.run[0].at + hugeSize - 1) &^ (hugeSize - 1)
	end := max((last.at+last.n)&^(hugeSize-1), first)
	for _, x := range f.run {
		head := min(x.n, first-min(first, x.at))
		f.put(piece{x.at, head, x.off})
		x = piece{x.at + head, x.n - head, x.off + head}
		whole := min(x.n, end-min(end, x.at))
		if whole > 0 {
			f.written = append(f.written, piece{x.at, whole, x.off})
		}
		f.put(piece{x.at + whole, x.n - whole, x.off + whole})
	}
	f.run = f.run[:0]
}

func (f *filling) put(x piece) {
	if x.n > 0 {
		f.fresh, f.freshLen = append(f.fresh, x), f.freshLen+x.n
	}
}

// carryOut brings the pieces in: those by userfaultfd first, because a write to
// a registered area would wait for ever.
func (b *builder) carryOut(p *proc, f *filling) error {
	t := &target{p: p, uffd: -1}
	defer t.close()
	if f.freshLen >= uffdFrom && f.freshLen/uint64(len(f.areas)) >= uffdArea || f.small {
		if err := t.register(f.areas); err != nil && len(p.lazy) > 0 {
			return fmt.Errorf("pid %d: userfaultfd: %w", p.pid, err)
		}
	}
	if t.uffd >= 0 {
		if err := b.pour(f.fresh, t.copyIn); err != nil {
			return err
		}
		t.unregister()
	} else {
		f.written = append(f.fresh, f.written...)
	}
	if err := b.collapse(p, f.collapse); err != nil {
		return err
	}
	if err := b.pour(f.written, t.write); err != nil {
		return err
	}
	if len(f.drops) == 0 {
		return nil
	}
	p.exec.Reset()
	q := &queue{b: b, e: p.exec}
	for _, d := range f.drops {
		q.add("madvise(MADV_DONTNEED)", unix.SYS_MADVISE, d[0], d[1], unix.MADV_DONTNEED)
	}
	return q.flush()
}

const (
	madvCollapse = 25 // MADV_COLLAPSE, Linux 6.1
	// collapseMax is how much is asked for at a time: the kernel may have to move
	// other pages first, and stops being asked when it has no more.
	collapseMax = 64 << 20
	// fullPages is of how many pages a huge page must consist to be made: the
	// others come into being with it.
	fullPages = hugeSize / sys.PageSize * 7 / 8
)

// fullHuge finds the huge pages of an area that are full enough.
func (b *builder) fullHuge(p *proc, a *area) map[uint64]bool {
	v, pages := p.pages.GetVaddr(), p.pages.GetPages()
	count := map[uint64]uint64{}
	first, last := (a.GetStart()+hugeSize-1)/hugeSize, a.GetEnd()/hugeSize
	i := sort.Search(len(v), func(i int) bool { return v[i]+pages[i]*sys.PageSize > a.GetStart() })
	for ; i < len(v) && v[i] < a.GetEnd(); i++ {
		end := min(v[i]+pages[i]*sys.PageSize, a.GetEnd())
		for at := max(v[i], a.GetStart()); at < end; at = min(end, (at/hugeSize+1)*hugeSize) {
			count[at/hugeSize] += (min(end, (at/hugeSize+1)*hugeSize) - at) / sys.PageSize
		}
	}
	full := map[uint64]bool{}
	for k, n := range count {
		if n >= fullPages && k >= first && k < last {
			full[k] = true
		}
	}
	return full
}

// collapse makes huge pages of ranges that nothing is in yet, as far as the
// kernel has them.
func (b *builder) collapse(p *proc, ranges []span) error {
	slices.SortFunc(ranges, func(x, y span) int { return cmp.Compare(x.at, y.at) })
	for len(ranges) > 0 {
		n := 1
		for n < len(ranges) && n < collapseMax/hugeSize && ranges[n].at == ranges[n-1].at+hugeSize {
			n++
		}
		// There must be a page for the kernel to see anything there.
		first := make([]sys.Range, n)
		for i := range first {
			first[i] = sys.Range{Addr: ranges[i].at, Len: 1}
		}
		if got, err := sys.WriteMemV(p.host(), make([]byte, n), first); err != nil || got != n {
			return nil // it will be written all the same
		}
		p.exec.Reset()
		call := p.exec.Add(unix.SYS_MADVISE, ranges[0].at, uint64(n)*hugeSize, madvCollapse)
		if err := p.exec.Run(); err != nil {
			return err
		}
		if p.exec.Err(call) != nil {
			return nil
		}
		ranges = ranges[n:]
	}
	return nil
}

// pour hands the content of pieces to put, several goroutines at once; what it
// gets lies one after another in the store.
func (b *builder) pour(all []piece, put func(batch []piece, data []byte) error) error {
	var total uint64
	for i := range all {
		total += all[i].n
	}
	if byOff := func(x, y piece) int { return cmp.Compare(x.off, y.off) }; !slices.IsSortedFunc(all, byOff) {
		slices.SortFunc(all, byOff)
	}
	workers := min(runtime.GOMAXPROCS(0), 8, int(total/fillPiece)+1)
	errs := make([]error, workers)
	var failed atomic.Bool
	work := func(w int) {
		first, last := total*uint64(w)/uint64(workers), total*uint64(w+1)/uint64(workers)
		if errs[w] = b.share(all, first&^(sys.PageSize-1), last&^(sys.PageSize-1), &failed, put); errs[w] != nil {
			failed.Store(true)
		}
	}
	var wg sync.WaitGroup
	for w := range workers - 1 {
		wg.Go(func() { work(w) })
	}
	work(workers - 1)
	wg.Wait()
	return errors.Join(errs...)
}

// share hands on what lies between the first and the last byte of all pieces
// taken together.
func (b *builder) share(all []piece, first, last uint64, failed *atomic.Bool, put func([]piece, []byte) error) error {
	var at uint64 // of the next piece, in all of them
	var batch []piece
	var n uint64
	r := b.store.NewReader()
	defer r.Close()
	flush := func() error {
		for n > 0 {
			d, err := r.At(batch[0].off, n)
			if err != nil {
				return err
			}
			now := batch
			var rest []piece
			if uint64(len(d)) < n { // a file of the store ends here
				now, rest = cut(batch, uint64(len(d)))
			}
			if err := put(now, d); err != nil {
				return err
			}
			b.filled(len(d))
			batch, n = rest, n-uint64(len(d))
		}
		batch = batch[:0]
		return nil
	}
	for i := range all {
		x := all[i]
		start := at
		at += x.n
		if at <= first {
			continue
		}
		if start >= last || failed.Load() {
			break
		}
		if start < first {
			d := first - start
			x.at, x.off, x.n, start = x.at+d, x.off+d, x.n-d, first
		}
		x.n = min(x.n, last-start)
		for x.n > 0 {
			if n > 0 && (batch[len(batch)-1].off+batch[len(batch)-1].n != x.off || n == fillPiece || len(batch) == fillVector) {
				if err := flush(); err != nil {
					return err
				}
			}
			// Up to the end of a checksummed chunk, so that each is looked at by
			// one goroutine, while it is in its cache.
			l := min(x.n, fillPiece-n, fillPiece-x.off%fillPiece)
			batch, n = append(batch, piece{x.at, l, x.off}), n+l
			x.at, x.off, x.n = x.at+l, x.off+l, x.n-l
			if x.off%fillPiece == 0 {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// cut divides pieces after n bytes.
func cut(all []piece, n uint64) (head, tail []piece) {
	for i, x := range all {
		if x.n <= n {
			n -= x.n
			continue
		}
		head = append(head, all[:i]...)
		if n > 0 {
			head = append(head, piece{x.at, n, x.off})
		}
		tail = append(tail, piece{x.at + n, x.n - n, x.off + n})
		return head, append(tail, all[i+1:]...)
	}
	return all, nil
}

// target is the address space that pages go to.
type target struct {
	p    *proc
	uffd int
	once sync.Once
	mem  *os.File // /proc/PID/mem, where the process itself may not write
	err  error
}

func (t *target) close() {
	t.unregister()
	if t.mem != nil {
		t.mem.Close()
	}
}

// register registers areas with a userfaultfd. Too old a kernel has none, or it
// is forbidden: then t.uffd stays -1, and there is another way.
func (t *target) register(areas []*area) (err error) {
	// Nobody touches the pages meanwhile, so what everybody may have suffices.
	fd, err := t.p.userfaultfd(sys.UffdUserModeOnly)
	if err != nil {
		return err
	}
	if err = sys.UffdEnable(fd, 0); err == nil {
		for _, a := range areas {
			if err = sys.UffdRegister(fd, a.GetStart(), a.GetEnd()-a.GetStart(), sys.UffdMissing); err != nil {
				break
			}
		}
	}
	if err != nil {
		unix.Close(fd) // which undoes what was registered
		return err
	}
	t.uffd = fd
	return nil
}

// unregister closes the userfaultfd, and with it everything about it.
func (t *target) unregister() {
	if t.uffd >= 0 {
		unix.Close(t.uffd)
		t.uffd = -1
	}
}

// userfaultfd makes a userfaultfd of the process's address space and gives it to
// this process alone.
func (p *proc) userfaultfd(flags uint64) (int, error) {
	pidfd, err := unix.PidfdOpen(p.host(), 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	e := p.Executor()
	n, err := e.Call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|flags)
	if err != nil {
		return -1, err
	}
	fd, err := unix.PidfdGetfd(pidfd, int(n), 0)
	e.Reset()
	if _, cerr := e.Call(unix.SYS_CLOSE, uint64(n)); err == nil && cerr != nil {
		unix.Close(fd)
		err = cerr
	}
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// copyIn brings pieces in through the userfaultfd.
func (t *target) copyIn(batch []piece, d []byte) error {
	for _, x := range batch {
		for n := uint64(0); n < x.n; {
			done, err := sys.UffdCopy(t.uffd, x.at+n, d[n:x.n])
			n += uint64(done)
			if err != nil && (err != unix.EAGAIN || done == 0) {
				return fmt.Errorf("pid %d: page at %#x: %w", t.p.pid, x.at+n, err)
			}
		}
		d = d[x.n:]
	}
	return nil
}

// write writes pieces with process_vm_writev; where the process may not write
// itself, through /proc/PID/mem, which may.
func (t *target) write(batch []piece, d []byte) error {
	ranges := make([]sys.Range, len(batch))
	for i, x := range batch {
		ranges[i] = sys.Range{Addr: x.at, Len: x.n}
	}
	if n, err := sys.WriteMemV(t.p.host(), d, ranges); err == nil && n == len(d) {
		return nil
	}
	for _, x := range batch {
		if err := t.writeOne(x.at, d[:x.n]); err != nil {
			return fmt.Errorf("pid %d: page at %#x: %w", t.p.pid, x.at, err)
		}
		d = d[x.n:]
	}
	return nil
}

func (t *target) writeOne(at uint64, d []byte) error {
	err := sys.WriteMem(t.p.host(), at, d)
	if err == nil {
		return nil
	}
	t.once.Do(func() {
		t.mem, t.err = os.OpenFile(fmt.Sprintf("/proc/%d/mem", t.p.host()), os.O_RDWR, 0)
	})
	if t.err != nil {
		return err
	}
	_, err = t.mem.WriteAt(d, int64(at))
	return err
}
