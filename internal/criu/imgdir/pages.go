package imgdir

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
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
	vdso span // content that the runs lack
	n    uint64
	shm  bool
}

type span struct{ start, end uint64 }

// anonBase is added to the ids of shared anonymous objects: those of memfds,
// which are numbered by themselves, share their files' names.
const anonBase = 1 << 24

func anonID(id uint64) uint64 { return anonBase + id }

// WritePages writes every page of the image into dir: fill reads from the page
// store's offsets, vdso is the content of the tasks' vdso. progress gets the
// bytes written.
func WritePages(im *image.Image, dir string, fill func(off uint64, b []byte) error, vdso []byte, progress func(int64)) (*Pages, error) {
	all, err := pageFiles(im, uint64(len(vdso)))
	if err != nil {
		return nil, err
	}
	work := make(chan int, len(all))
	for i := range all {
		work <- i
	}
	close(work)
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			buf, err := unix.Mmap(-1, 0, pieceSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
			if err != nil {
				errs[0] = err
				return
			}
			defer unix.Munmap(buf)
			for i := range work {
				errs[i] = all[i].write(dir, uint32(i+1), fill, vdso, buf, progress)
			}
		})
	}
	wg.Wait()
	p := &Pages{}
	for i, f := range all {
		if errs[i] != nil {
			return nil, errs[i]
		}
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
		if s.GetKind() == collect.ShmMemfd {
			id = s.GetId()
		}
		all = append(all, &pageFile{name: fmt.Sprintf("pagemap-shmem-%d.img", id), runs: s.GetPages(), shm: true})
	}
	return all, nil
}

func (f *pageFile) write(dir string, id uint32, fill func(uint64, []byte) error, vdso, buf []byte, progress func(int64)) (err error) {
	m, err := create(dir, f.name, "PAGEMAP")
	if err != nil {
		return err
	}
	defer func() {
		if cerr := m.close(); err == nil {
			err = cerr
		}
	}()
	m.add(&pagemap.PagemapHead{PagesId: proto.Uint32(id)}, nil)
	if len(f.runs.GetVaddr()) == 0 && f.vdso.end == 0 && f.shm {
		return nil
	}
	out, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("pages-%d.img", id)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
	}()
	var held []byte // bytes of buf in use
	flush := func() error {
		if len(held) == 0 {
			return nil
		}
		_, err := out.Write(held)
		if progress != nil {
			progress(int64(len(held)))
		}
		held = buf[:0]
		return err
	}
	held = buf[:0]
	entry := func(at, n uint64, flags uint32) {
		f.n += n / sys.PageSize
		m.add(&pagemap.PagemapEntry{
			Vaddr: proto.Uint64(at), CompatNrPages: proto.Uint32(0), NrPages: proto.Uint64(n / sys.PageSize), Flags: proto.Uint32(flags),
		}, nil)
	}
	code := func() error {
		entry(f.vdso.start, f.vdso.end-f.vdso.start, pagePresent)
		f.vdso.end = 0
		if err := flush(); err != nil {
			return err
		}
		_, err := out.Write(vdso)
		return err
	}
	for i, at := range f.runs.GetVaddr() {
		if f.vdso.end != 0 && f.vdso.start < at {
			if err := code(); err != nil {
				return err
			}
		}
		off, n := f.runs.GetOff()[i], f.runs.GetPages()[i]*sys.PageSize
		f.split(at, n, entry)
		for n > 0 {
			if len(held) == len(buf) {
				if err := flush(); err != nil {
					return err
				}
			}
			l := min(n, uint64(len(buf)-len(held)))
			piece := buf[len(held) : len(held)+int(l)]
			if err := fill(off, piece); err != nil {
				return err
			}
			held = buf[:len(held)+int(l)]
			off, n = off+l, n-l
		}
	}
	if f.vdso.end != 0 {
		if err := code(); err != nil {
			return err
		}
	}
	return flush()
}

// split makes entries of a run: what may come late, and the rest.
func (f *pageFile) split(at, n uint64, entry func(at, n uint64, flags uint32)) {
	end := at + n
	for at < end {
		for len(f.lazy) > 0 && f.lazy[0].end <= at {
			f.lazy = f.lazy[1:]
		}
		switch {
		case len(f.lazy) == 0 || f.lazy[0].start >= end:
			entry(at, end-at, pagePresent)
			return
		case f.lazy[0].start > at:
			entry(at, f.lazy[0].start-at, pagePresent)
			at = f.lazy[0].start
		default:
			to := min(end, f.lazy[0].end)
			entry(at, to-at, pagePresent|pageLazy)
			at = to
		}
	}
}
