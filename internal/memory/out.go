// Package memory moves pages: out of stopped tasks into a page store, and from
// a store into tasks being restored.
package memory

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/sys"
)

// span is a run of bytes with one source, at its place in the store.
type span struct {
	off uint64 // in the store
	len uint64
	pid int    // of the task, or
	fd  int    // of the object: pid is 0
	at  uint64 // address, or offset in the object
	cow bool   // shared with other address spaces: see readShared
}

// Outgoing is what will be written to a page store: first the spans are noted,
// then, with the tasks still stopped, Fill reads them. What belongs to snapshots
// of tasks may be noted and read later, after Hold.
type Outgoing struct {
	spans  []span
	total  uint64
	held   []byte            // the store's first bytes, when they were read already
	frames map[uint64]framed // by frame number
	maps   map[int]*os.File  // pid -> its page map
	mems   sync.Map          // pid -> *os.File of its /proc/PID/mem
	blind  bool              // the kernel does not show the frames
}

// NewOutgoing begins. Frames that several address spaces map are found and
// written once.
func NewOutgoing() *Outgoing { return &Outgoing{frames: map[uint64]framed{}, maps: map[int]*os.File{}} }

// Close gives up what Fill held open.
func (o *Outgoing) Close() {
	o.mems.Range(func(_, f any) bool {
		f.(*os.File).Close()
		return true
	})
	o.mems.Clear()
	for _, f := range o.maps {
		f.Close()
	}
	clear(o.maps)
}

// Blind tells whether there are pages that several address spaces may share, and
// the kernel does not show this process which.
func (o *Outgoing) Blind() bool { return o.blind }

// Total gives the bytes noted so far.
func (o *Outgoing) Total() uint64 { return o.total }

// Hold reads all that was noted so far into b, of Total bytes, which stays the
// Outgoing's. The tasks it came from may go on then; frames known by now are
// forgotten, since they may get another content.
func (o *Outgoing) Hold(b []byte) error {
	if err := o.Take(b); err != nil {
		return err
	}
	o.held = b
	o.frames = map[uint64]framed{}
	return nil
}

// Forget takes the pages of [start,end) out of a list of runs of what is held,
// whose content is erased.
func (o *Outgoing) Forget(runs *fm.PageRuns, start, end uint64) *fm.PageRuns {
	left := NewRuns()
	for i, at := range runs.GetVaddr() {
		n, off := runs.GetPages()[i]*sys.PageSize, runs.GetOff()[i]
		from, to := min(max(start, at), at+n), max(min(end, at+n), at)
		if from >= to {
			AppendRun(left, at, off, n/sys.PageSize)
			continue
		}
		if off < pagestore.Below { // else it is in the parent already, and stays there
			clear(o.held[off+from-at : off+to-at])
		}
		if from > at {
			AppendRun(left, at, off, (from-at)/sys.PageSize)
		}
		if to < at+n {
			AppendRun(left, to, off+to-at, (at+n-to)/sys.PageSize)
		}
	}
	return left
}

// Pagemap is an open /proc/PID/pagemap.
type Pagemap struct {
	f   *os.File
	pid int
	buf []sys.PageRegion
	old bool // a kernel before 6.7: no PAGEMAP_SCAN
	// noGuard: a kernel before 6.15, whose PAGEMAP_SCAN does not know guard
	// regions and calls them swapped.
	noGuard bool
	ents    []uint64
	// snapshot: the task is a copy of another: all its pages are shared
	// copy-on-write.
	snapshot bool
}

// OpenPagemap opens a task's page map.
func OpenPagemap(pid int) (*Pagemap, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, err
	}
	return &Pagemap{f: f, pid: pid, buf: make([]sys.PageRegion, 512)}, nil
}

// OpenSnapshot opens the page map of a snapshot of a task.
func OpenSnapshot(pid int) (*Pagemap, error) {
	p, err := OpenPagemap(pid)
	if err == nil {
		p.snapshot = true
	}
	return p, err
}

// First gives the first of some areas, in ascending order, that has pages of its
// own, as Own would find them; len(areas) when none has.
func (p *Pagemap) First(areas []Range) (int, error) {
	first := len(areas)
	err := p.own(areas, 1, func(i int, _, _ uint64, _ bool) error {
		first = i
		return errFound
	})
	if err != nil && !errors.Is(err, errFound) {
		return 0, err
	}
	return first, nil
}

var errFound = errors.New("found")

// Close closes the page map.
func (p *Pagemap) Close() { p.f.Close() }

// Range is a part of an address space.
type Range struct{ Start, End uint64 }

// Own finds, in areas in ascending order, the runs of pages whose content is the
// task's own: anonymous pages, present or swapped, that are not the zero page (in
// a private file mapping, the copied ones), and those that are guard regions.
// yield gets the area's index. What lies between the areas is walked too: it
// should be little or nothing.
func (p *Pagemap) Own(areas []Range, yield func(area int, start, end uint64, guard bool) error) error {
	return p.own(areas, 0, yield)
}

// own is Own that looks for that many pages at a time, 0 for any number.
func (p *Pagemap) own(areas []Range, pages uint64, yield func(area int, start, end uint64, guard bool) error) error {
	at := 0 // the first area that is not done
	take := func(start, end uint64, guard bool) error {
		for ; at < len(areas) && areas[at].Start < end; at++ {
			if s, e := max(start, areas[at].Start), min(end, areas[at].End); s < e {
				if err := yield(at, s, e, guard); err != nil {
					return err
				}
			}
			if areas[at].End > end {
				break
			}
		}
		return nil
	}
	if len(areas) == 0 {
		return nil
	}
	start, end := areas[0].Start, areas[len(areas)-1].End
	scan := sys.PageScan{
		Inverted: sys.PageFile | sys.PageZero, All: sys.PageFile | sys.PageZero,
		Any: sys.PagePresent | sys.PageSwapped, Report: sys.PageGuard, // a guard counts as swapped
		Max: pages,
	}
	for start < end && !p.old {
		if p.noGuard {
			scan.Report = 0
		}
		n, next, err := sys.ScanPages(int(p.f.Fd()), start, end, scan, p.buf)
		switch {
		case errors.Is(err, unix.EINVAL) && !p.noGuard:
			p.noGuard = true
			continue
		case errors.Is(err, unix.ENOTTY):
			p.old = true
			continue
		case err != nil:
			return fmt.Errorf("pid %d: PAGEMAP_SCAN %#x-%#x: %w", p.pid, start, end, err)
		}
		for _, r := range p.buf[:n] {
			if err := take(r.Start, r.End, r.Categories&sys.PageGuard != 0); err != nil {
				return err
			}
		}
		if next <= start {
			return nil
		}
		start = next
	}
	for i := range areas { // on an old kernel
		if s := max(start, areas[i].Start); s < areas[i].End {
			err := p.entries(s, areas[i].End, func(at, e uint64) error {
				if e&(sys.PMPresent|sys.PMSwap) == 0 || e&sys.PMFile != 0 {
					return nil
				}
				return yield(i, at, at+sys.PageSize, false)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// entries walks the plain page map of [start,end).
func (p *Pagemap) entries(start, end uint64, yield func(at, e uint64) error) error {
	if p.ents == nil {
		p.ents = make([]uint64, entriesMax)
	}
	for start < end {
		n := min((end-start)/sys.PageSize, uint64(len(p.ents)))
		if err := sys.ReadPagemap(int(p.f.Fd()), start, p.ents[:n]); err != nil {
			return fmt.Errorf("pid %d: pagemap %#x: %w", p.pid, start, err)
		}
		for i, e := range p.ents[:n] {
			if err := yield(start+uint64(i)*sys.PageSize, e); err != nil {
				return err
			}
		}
		start += n * sys.PageSize
	}
	return nil
}

// AddRun notes a run of a task's own pages and appends it to runs. share says
// that other address spaces may map some of them too.
func (o *Outgoing) AddRun(p *Pagemap, start, end uint64, share bool, runs *fm.PageRuns) error {
	if !share {
		o.add(runs, p.pid, -1, start, end-start, p.snapshot)
		return nil
	}
	return o.addShared(p, start, end, runs)
}

// addShared is AddRun of pages that other address spaces may map too: these are
// known by their frame, exclusive ones are taken in runs.
func (o *Outgoing) addShared(p *Pagemap, start, end uint64, runs *fm.PageRuns) error {
	from := start
	flush := func(to uint64) {
		if to > from {
			o.add(runs, p.pid, -1, from, to-from, p.snapshot)
		}
		from = to
	}
	if p.ents == nil {
		p.ents = make([]uint64, entriesMax)
	}
	for ; start < end; start += entriesMax * sys.PageSize {
		ents := p.ents[:min((end-start)/sys.PageSize, entriesMax)]
		if err := sys.ReadPagemap(int(p.f.Fd()), start, ents); err != nil {
			return fmt.Errorf("pid %d: pagemap %#x: %w", p.pid, start, err)
		}
		same, err := o.same(p, start, ents)
		if err != nil {
			return err
		}
		for i, ent := range ents {
			if ent&sys.PMPresent == 0 || ent&sys.PMExclusive != 0 {
				continue
			}
			at := start + uint64(i)*sys.PageSize
			flush(at)
			from = at + sys.PageSize
			if same != nil && same[i].pid != 0 {
				AppendRun(runs, at, same[i].off, 1)
				continue
			}
			// Without CAP_SYS_ADMIN the frame's number reads as 0.
			if frame := ent & sys.PMFrameMask; frame != 0 {
				o.frames[frame] = framed{o.total, at, p.pid}
			} else {
				o.blind = true
			}
			o.add(runs, p.pid, -1, at, sys.PageSize, true)
		}
	}
	flush(end)
	return nil
}

// entriesMax is how many page map entries are read at once.
const entriesMax = 8192

// framed is a page that was noted: its place in the store, and whose it is.
type framed struct {
	off, at uint64
	pid     int
}

// same finds the pages of p that were noted already, nil when there are none.
// The kernel moves pages from one frame to another whenever it likes, and an
// address space that stands still is no exception: a frame that was one page's
// may be another's by now. So each is compared once more: where it has the frame
// before and after it was seen to be the other's frame, too, it is the same page.
func (o *Outgoing) same(p *Pagemap, start uint64, ents []uint64) ([]framed, error) {
	var found []framed
	for i, ent := range ents {
		if ent&sys.PMPresent == 0 || ent&sys.PMExclusive != 0 {
			continue
		}
		if f, ok := o.frames[ent&sys.PMFrameMask]; ok && ent&sys.PMFrameMask != 0 {
			if found == nil {
				found = make([]framed, len(ents))
			}
			found[i] = f
		}
	}
	if found == nil {
		return nil, nil
	}
	theirs := make([]uint64, len(ents))
	for i := 0; i < len(found); {
		j := i + 1
		if f := found[i]; f.pid != 0 {
			for j < len(found) && found[j].pid == f.pid && found[j].at == f.at+uint64(j-i)*sys.PageSize {
				j++
			}
			m, err := o.pagemap(f.pid)
			if err != nil {
				return nil, err
			}
			if err := sys.ReadPagemap(int(m.Fd()), f.at, theirs[i:j]); err != nil {
				return nil, fmt.Errorf("pid %d: pagemap %#x: %w", f.pid, f.at, err)
			}
		}
		i = j
	}
	now := make([]uint64, len(ents))
	if err := sys.ReadPagemap(int(p.f.Fd()), start, now); err != nil {
		return nil, fmt.Errorf("pid %d: pagemap %#x: %w", p.pid, start, err)
	}
	const whole = sys.PMPresent | sys.PMFrameMask
	for i := range found {
		if theirs[i]&whole != ents[i]&whole || now[i]&whole != ents[i]&whole {
			found[i] = framed{}
		}
	}
	return found, nil
}

// pagemap gives the open page map of a task whose pages were noted.
func (o *Outgoing) pagemap(pid int) (*os.File, error) {
	if f := o.maps[pid]; f != nil {
		return f, nil
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err == nil {
		o.maps[pid] = f
	}
	return f, err
}

// AddObject notes the data of a shared memory object, whose holes stay holes.
// fd must stay open until Fill is done.
func (o *Outgoing) AddObject(fd int, size uint64, runs *fm.PageRuns) error {
	return Extents(fd, size, func(from, to uint64) error {
		from &^= sys.PageSize - 1
		to = (to + sys.PageSize - 1) &^ (sys.PageSize - 1)
		o.add(runs, 0, fd, from, to-from, false)
		return nil
	})
}

// Extents walks the data of a file: what SEEK_DATA and SEEK_HOLE (lseek(2))
// find up to size.
func Extents(fd int, size uint64, yield func(from, to uint64) error) error {
	for at := int64(0); uint64(at) < size; {
		d, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err != nil {
			if errors.Is(err, unix.ENXIO) {
				return nil
			}
			return fmt.Errorf("SEEK_DATA: %w", err)
		}
		if uint64(d) >= size {
			return nil
		}
		h, err := unix.Seek(fd, d, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("SEEK_HOLE: %w", err)
		}
		if err := yield(uint64(d), min(uint64(h), size)); err != nil {
			return err
		}
		at = h
	}
	return nil
}

func (o *Outgoing) add(runs *fm.PageRuns, pid, fd int, at, n uint64, cow bool) {
	if n == 0 {
		return
	}
	AppendRun(runs, at, o.total, n/sys.PageSize)
	if l := len(o.spans); l > 0 {
		if s := &o.spans[l-1]; s.pid == pid && s.fd == fd && s.cow == cow && s.at+s.len == at {
			s.len += n
			o.total += n
			return
		}
	}
	o.spans = append(o.spans, span{off: o.total, len: n, pid: pid, fd: fd, at: at, cow: cow})
	o.total += n
}

// AppendRun adds pages to a list of runs, joining what is adjacent.
func AppendRun(r *fm.PageRuns, addr, off, pages uint64) { pagestore.AppendRun(r, addr, off, pages) }

// NewRuns gives an empty list of runs.
func NewRuns() *fm.PageRuns { return &fm.PageRuns{} }

const iovMax = 1024

// Fill reads the store's bytes from off on out of the tasks and objects; it is
// a pagestore.Source, safe from several goroutines.
func (o *Outgoing) Fill(off uint64, b []byte) error {
	if off < uint64(len(o.held)) {
		n := copy(b, o.held[off:])
		if b = b[n:]; len(b) == 0 {
			return nil
		}
		off += uint64(n)
	}
	i := sort.Search(len(o.spans), func(i int) bool { return o.spans[i].off+o.spans[i].len > off })
	var ranges [iovMax]sys.Range
	for len(b) > 0 {
		if i == len(o.spans) {
			return fmt.Errorf("page store: nothing at %#x", off)
		}
		s := &o.spans[i]
		skip := off - s.off
		if s.pid == 0 {
			n := min(s.len-skip, uint64(len(b)))
			if err := preadFull(s.fd, b[:n], int64(s.at+skip)); err != nil {
				return err
			}
			b, off = b[n:], off+n
			i++
			continue
		}
		if s.cow {
			n := min(s.len-skip, uint64(len(b)))
			if err := o.readShared(s.pid, b[:n], s.at+skip); err != nil {
				return err
			}
			b, off = b[n:], off+n
			i++
			continue
		}
		// As many ranges of the same task as fit one call.
		n, bytes := 0, uint64(0)
		for j := i; j < len(o.spans) && n < iovMax && bytes < uint64(len(b)) && o.spans[j].pid == s.pid && !o.spans[j].cow; j++ {
			l := min(o.spans[j].len-skip, uint64(len(b))-bytes)
			ranges[n] = sys.Range{Addr: o.spans[j].at + skip, Len: l}
			n, bytes, skip = n+1, bytes+l, 0
		}
		if err := readTask(s.pid, b[:bytes], ranges[:n]); err != nil {
			return err
		}
		b, off = b[bytes:], off+bytes
		for i < len(o.spans) && o.spans[i].off+o.spans[i].len <= off {
			i++
		}
	}
	return nil
}

// takePiece is what one thread reads at a time: enough for the threads to meet
// seldom, and below what one call of the kernel moves (MAX_RW_COUNT).
const takePiece = 2 << 20

// Take is Fill of the store's first bytes, by several threads where there is
// something to share.
func (o *Outgoing) Take(b []byte) error {
	pieces := (len(b) + takePiece - 1) / takePiece
	workers := min(runtime.GOMAXPROCS(0), 8, pieces)
	if workers < 2 {
		return o.Fill(0, b)
	}
	errs := make([]error, workers)
	var next atomic.Int64
	var wg sync.WaitGroup
	work := func(w int) {
		for errs[w] == nil {
			i := int(next.Add(1)) - 1
			if i >= pieces {
				return
			}
			from := i * takePiece
			errs[w] = o.Fill(uint64(from), b[from:min(from+takePiece, len(b))])
		}
	}
	for w := range workers - 1 {
		wg.Go(func() { work(w) })
	}
	work(workers - 1)
	wg.Wait()
	return errors.Join(errs...)
}

// readShared reads pages that several address spaces share copy-on-write.
// process_vm_readv pins what it reads, and since Linux 5.19 pinning such a page
// gives the task a copy of its own (gup_must_unshare, mm/gup.c): the sharing
// would be lost by looking. /proc/PID/mem does not pin.
func (o *Outgoing) readShared(pid int, b []byte, at uint64) error {
	f, ok := o.mems.Load(pid)
	if !ok {
		n, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			return err
		}
		if f, ok = o.mems.LoadOrStore(pid, n); ok {
			n.Close()
		}
	}
	if _, err := f.(*os.File).ReadAt(b, int64(at)); err != nil {
		return fmt.Errorf("pid %d: memory at %#x: %w", pid, at, err)
	}
	return nil
}

// preadFull reads b whole; what lies behind the object's end is zero.
func preadFull(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(fd, b, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("shared memory object at %#x: %w", off, err)
		}
		if n == 0 {
			clear(b)
			return nil
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// readTask copies ranges of a task. Areas without read permission answer EFAULT
// to process_vm_readv; /proc/PID/mem reads them.
func readTask(pid int, b []byte, ranges []sys.Range) error {
	n, err := sys.ReadMemV(pid, b, ranges)
	if err == nil && n == len(b) {
		return nil
	}
	if err != nil && !errors.Is(err, unix.EFAULT) {
		return fmt.Errorf("pid %d: memory at %#x: %w", pid, ranges[0].Addr, err)
	}
	mem, merr := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if merr != nil {
		return fmt.Errorf("pid %d: memory at %#x: %w", pid, ranges[0].Addr, merr)
	}
	defer mem.Close()
	for _, r := range ranges {
		if uint64(n) >= r.Len {
			n -= int(r.Len)
			b = b[r.Len:]
			continue
		}
		if _, err := mem.ReadAt(b[n:r.Len], int64(r.Addr)+int64(n)); err != nil {
			return fmt.Errorf("pid %d: memory at %#x: %w", pid, r.Addr, err)
		}
		b, n = b[r.Len:], 0
	}
	return nil
}
