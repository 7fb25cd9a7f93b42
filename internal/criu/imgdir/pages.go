package imgdir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Flags of a pagemap entry.
const (
	pageParent  = 1 << 0 // in the parent directory
	pageLazy    = 1 << 1 // may come when it is touched
	pagePresent = 1 << 2 // in the pages file
)

// Pages counts what was written.
type Pages struct {
	Written, Shared uint64
	Skipped         uint64 // left to the parent directory
}

// pageFile is one pages-N.img with its pagemap.
type pageFile struct {
	name string // of the pagemap
	runs *fm.PageRuns
	lazy []span
	vdso span   // content that the runs lack
	n    uint64 // pages written
	shm  bool

	skipped uint64 // pages that the parent has
}

type span struct{ start, end uint64 }

// anonBase is added to the ids of shared anonymous objects: those of memfds,
// which are numbered by themselves, share their files' names.
const anonBase = 1 << 24

func anonID(id uint64) uint64 { return anonBase + id }

// sysvID is the same for System V segments.
func sysvID(id uint64) uint64 { return 2*anonBase + id }

// WritePages writes every page of the image into dir: fill reads from the page
// store's offsets, vdso is the content of the tasks' vdso. progress gets the
// bytes written. With a parent, an image directory, pages that it has with the
// same content are left to it. With a page server all go there instead.
func WritePages(im *image.Image, dir, parent string, to *Remote, fill func(off uint64, b []byte) error, vdso []byte, progress func(int64)) (*Pages, error) {
	all, err := pageFiles(im, uint64(len(vdso)))
	if err != nil {
		return nil, err
	}
	var below *Below
	writers := 2
	if to != nil {
		writers = 1
	} else if parent != "" {
		if below, err = openBelow(parent, all); err != nil {
			return nil, err
		}
		defer below.close()
	}
	work := make(chan int, len(all))
	for i := range all {
		work <- i
	}
	close(work)
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			w := &pageWriter{dir: dir, to: to, fill: fill, vdso: vdso, progress: progress, below: below}
			if err := w.open(); err != nil {
				errs[0] = err
				return
			}
			defer w.close()
			for i := range work {
				if errs[i] = w.write(all[i], uint32(i+1)); errs[i] != nil && to != nil {
					return // what follows would be taken for pages of this one
				}
			}
		})
	}
	wg.Wait()
	if errors.Join(errs...) == nil && to != nil {
		if err := to.finish(); err != nil {
			return nil, err
		}
	}
	p := &Pages{}
	for i, f := range all {
		if errs[i] != nil {
			return nil, errs[i]
		}
		p.Skipped += f.skipped
		if f.shm {
			p.Shared += f.n
		} else {
			p.Written += f.n
		}
	}
	return p, nil
}

const pieceSize = 1 << 20

func pageFiles(im *image.Image, vdso uint64) (all []*pageFile, err error) {
	for _, pid := range im.NamesOf("pages") {
		r, err := image.One[*fm.PageRuns](im, image.Of("pages", pid))
		if err != nil {
			return nil, err
		}
		m, err := image.One[*mm.MmEntry](im, image.Of("mm", pid))
		if err != nil {
			return nil, err
		}
		f := &pageFile{name: fmt.Sprintf("pagemap-%d.img", pid), runs: r}
		for _, v := range m.GetVmas() {
			s := span{v.GetStart(), v.GetEnd()}
			switch st := v.GetStatus(); {
			case st&collect.VMAVdso != 0:
				if s.end-s.start == vdso {
					f.vdso = s
				}
			case st&collect.VMAAnonPrivate != 0 && v.GetFlags()&unix.MAP_HUGETLB == 0:
				f.lazy = append(f.lazy, s)
			}
		}
		all = append(all, f)
	}
	shm, err := image.All[*fm.ShmObject](im, "shm")
	if err != nil {
		return nil, err
	}
	for _, s := range shm {
		id := anonID(s.GetId())
		switch s.GetKind() {
		case collect.ShmMemfd:
			id = s.GetId()
		case collect.ShmSysV:
			id = sysvID(s.GetId())
		}
		all = append(all, &pageFile{name: fmt.Sprintf("pagemap-shmem-%d.img", id), runs: s.GetPages(), shm: true})
	}
	return all, nil
}

// pageWriter writes pages files, one after another, through buffers of its own.
type pageWriter struct {
	dir      string
	to       *Remote // nil: into files
	dst      uint64  // what the page server knows the file by
	fill     func(uint64, []byte) error
	vdso     []byte
	progress func(int64)
	below    *Below
	reader   *pagestore.Reader // of the parent's pages

	both    []byte
	in, out []byte // pieces as read and as they go to the file
	held    int    // bytes of out in use
	f       *pageFile
	m       *file
	pages   *os.File
	last    *pagemap.PagemapEntry // not written yet
}

func (w *pageWriter) open() error {
	b, err := unix.Mmap(-1, 0, 2*pieceSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	w.both, w.in, w.out = b, b[:pieceSize], b[pieceSize:]
	if w.below != nil {
		w.reader = w.below.src.Store.NewReader()
	}
	return nil
}

func (w *pageWriter) close() {
	if w.reader != nil {
		w.reader.Close()
	}
	unix.Munmap(w.both)
}

func (w *pageWriter) write(f *pageFile, id uint32) (err error) {
	w.f, w.last, w.held = f, nil, 0
	if w.to != nil {
		if w.dst, err = w.to.open(f.name); err != nil {
			return err
		}
		return w.all()
	}
	if w.m, err = create(w.dir, f.name, "PAGEMAP"); err != nil {
		return err
	}
	w.m.add(&pagemap.PagemapHead{PagesId: proto.Uint32(id)}, nil)
	defer func() {
		if cerr := w.m.close(); err == nil {
			err = cerr
		}
	}()
	if w.pages, err = os.OpenFile(filepath.Join(w.dir, fmt.Sprintf("pages-%d.img", id)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return err
	}
	defer func() {
		if cerr := w.pages.Close(); err == nil {
			err = cerr
		}
	}()
	if err := w.all(); err != nil {
		return err
	}
	w.flushEntry()
	return w.flush()
}

// all writes all pages of a file.
func (w *pageWriter) all() error {
	f := w.f
	code := f.vdso
	for i, at := range f.runs.GetVaddr() {
		if code.end != 0 && code.start < at {
			if err := w.put(code.start, w.vdso, pagePresent); err != nil {
				return err
			}
			code.end = 0
		}
		off, n := f.runs.GetOff()[i], f.runs.GetPages()[i]*sys.PageSize
		for n > 0 {
			piece := w.in[:min(n, pieceSize)]
			if err := w.fill(off, piece); err != nil {
				return err
			}
			if err := w.compare(at, piece); err != nil {
				return err
			}
			l := uint64(len(piece))
			at, off, n = at+l, off+l, n-l
		}
	}
	if code.end != 0 {
		return w.put(code.start, w.vdso, pagePresent)
	}
	return nil
}

// compare writes those pages that the parent does not have, or has otherwise.
func (w *pageWriter) compare(at uint64, b []byte) error {
	var runs *fm.PageRuns
	if w.below != nil {
		runs = w.below.runs[w.f.name]
	}
	if runs == nil || len(runs.Vaddr) == 0 {
		return w.split(at, b)
	}
	from := 0 // pages from here on differ
	for k := 0; k < len(b); k += sys.PageSize {
		same, err := w.same(runs, at+uint64(k), b[k:k+sys.PageSize])
		if err != nil {
			return err
		}
		if !same {
			continue
		}
		if err := w.split(at+uint64(from), b[from:k]); err != nil {
			return err
		}
		from = k + sys.PageSize
		w.f.skipped++
		w.entry(at+uint64(k), sys.PageSize, pageParent)
	}
	return w.split(at+uint64(from), b[from:])
}

// same tells whether the parent has a page with this content.
func (w *pageWriter) same(runs *fm.PageRuns, at uint64, b []byte) (bool, error) {
	i := sort.Search(len(runs.Vaddr), func(i int) bool { return runs.Vaddr[i]+runs.Pages[i]*sys.PageSize > at })
	if i == len(runs.Vaddr) || runs.Vaddr[i] > at {
		return false, nil
	}
	off := runs.Off[i] + at - runs.Vaddr[i]
	old, err := w.reader.At(off, sys.PageSize)
	if err != nil {
		return false, err
	}
	return bytes.Equal(old, b), nil
}

// split writes a piece as what may come late, and the rest.
func (w *pageWriter) split(at uint64, b []byte) error {
	lazy := w.f.lazy
	for len(b) > 0 {
		i := sort.Search(len(lazy), func(i int) bool { return lazy[i].end > at })
		n, flags := uint64(len(b)), uint32(pagePresent)
		switch {
		case i < len(lazy) && lazy[i].start <= at:
			n, flags = min(n, lazy[i].end-at), pagePresent|pageLazy
		case i < len(lazy):
			n = min(n, lazy[i].start-at)
		}
		if err := w.put(at, b[:n], flags); err != nil {
			return err
		}
		at, b = at+n, b[n:]
	}
	return nil
}

// put writes pages with their entry.
func (w *pageWriter) put(at uint64, b []byte, flags uint32) error {
	if len(b) == 0 {
		return nil
	}
	w.f.n += uint64(len(b)) / sys.PageSize
	if w.to != nil {
		err := w.to.put(w.dst, at, b, flags)
		if err == nil && w.progress != nil {
			w.progress(int64(len(b)))
		}
		return err
	}
	w.entry(at, uint64(len(b)), flags)
	for len(b) > 0 {
		if w.held == len(w.out) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		n := copy(w.out[w.held:], b)
		w.held += n
		b = b[n:]
	}
	return nil
}

func (w *pageWriter) flush() error {
	if w.held == 0 {
		return nil
	}
	_, err := w.pages.Write(w.out[:w.held])
	if w.progress != nil {
		w.progress(int64(w.held))
	}
	w.held = 0
	return err
}

// entry notes pages in the pagemap; neighbours of one kind make one entry.
func (w *pageWriter) entry(at, n uint64, flags uint32) {
	pages := n / sys.PageSize
	if l := w.last; l != nil && l.GetFlags() == flags && l.GetVaddr()+l.GetNrPages()*sys.PageSize == at {
		l.NrPages = proto.Uint64(l.GetNrPages() + pages)
		return
	}
	w.flushEntry()
	w.last = &pagemap.PagemapEntry{Vaddr: proto.Uint64(at), CompatNrPages: proto.Uint32(0), NrPages: proto.Uint64(pages), Flags: proto.Uint32(flags)}
	if flags&pageParent != 0 {
		w.last.InParent = proto.Bool(true)
	}
}

func (w *pageWriter) flushEntry() {
	if w.last != nil {
		w.m.add(w.last, nil)
		w.last = nil
	}
}

// Below is the directory that another builds upon, with its pages.
type Below struct {
	src  *Source
	runs map[string]*fm.PageRuns // by the pagemap's name
}

func openBelow(dir string, all []*pageFile) (*Below, error) {
	b := &Below{src: &Source{dir: dir, bases: map[string]uint64{}}, runs: map[string]*fm.PageRuns{}}
	for _, f := range all {
		r, err := b.src.pagemap(dir, f.name, 0)
		if err != nil {
			return nil, fmt.Errorf("the previous images: %w", err)
		}
		b.runs[f.name] = r
	}
	if err := b.src.openStore(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Below) close() { b.src.Store.Close() }
