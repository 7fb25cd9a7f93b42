// Package pagestore keeps the pages of a checkpoint: plain files of page
// contents, one address space of offsets over all of them, with a CRC-32C for
// every chunk. Plain files can be mapped as they are.
package pagestore

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// Chunk is how many bytes one checksum covers. It fits the second-level cache,
// so that summing and copying read memory once.
const Chunk = 1 << 20

// Source fills b with the store's bytes from off on; it is called from several
// goroutines at once.
type Source func(off uint64, b []byte) error

// splitAbove is the size from which on a store has two files: two writers of
// one file wait for each other's lock.
const splitAbove = 8 << 20

// Layout gives the sizes of the store's files for a total of bytes.
func Layout(total uint64) []uint64 {
	if total == 0 {
		return nil
	}
	if total < splitAbove {
		return []uint64{total}
	}
	half := (total/2 + Chunk - 1) &^ (Chunk - 1)
	return []uint64{half, total - half}
}

// Write writes total bytes from src into files of dir and describes them;
// progress, if not nil, gets the bytes of each finished chunk.
func Write(dir string, total uint64, src Source, progress func(int64)) ([]*fm.StoreFile, error) {
	return write(dir, total, func() (piece, func(), error) {
		buf, err := unix.Mmap(-1, 0, Chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil, nil, err
		}
		next := func(off, n uint64) ([]byte, error) { return buf[:n], src(off, buf[:n]) }
		return next, func() { unix.Munmap(buf) }, nil
	}, progress)
}

// WriteMemory writes bytes that are in this process's memory already.
func WriteMemory(dir string, mem []byte, progress func(int64)) ([]*fm.StoreFile, error) {
	return write(dir, uint64(len(mem)), func() (piece, func(), error) {
		return func(off, n uint64) ([]byte, error) { return mem[off : off+n], nil }, func() {}, nil
	}, progress)
}

// piece gives n bytes of the store from off on, valid until its next call.
type piece func(off, n uint64) ([]byte, error)

// write has a reader of its own for each file.
func write(dir string, total uint64, reader func() (piece, func(), error), progress func(int64)) ([]*fm.StoreFile, error) {
	sizes := Layout(total)
	out := make([]*fm.StoreFile, len(sizes))
	errs := make([]error, len(sizes))
	var wg sync.WaitGroup
	var base uint64
	for i, size := range sizes {
		at := base
		base += size
		work := func() {
			next, done, err := reader()
			if err != nil {
				errs[i] = err
				return
			}
			defer done()
			out[i], errs[i] = writeFile(dir, fmt.Sprintf("pages-%d", i), at, size, next, progress)
		}
		if i == len(sizes)-1 {
			work()
			break
		}
		wg.Go(work)
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func writeFile(dir, name string, base, size uint64, next piece, progress func(int64)) (_ *fm.StoreFile, err error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	s := &fm.StoreFile{Name: proto.String(name), Size: proto.Uint64(size), Chunk: proto.Uint32(Chunk)}
	for off := uint64(0); off < size; off += Chunk {
		b, err := next(base+off, min(Chunk, size-off))
		if err != nil {
			return nil, err
		}
		s.Crc = append(s.Crc, crc32.Checksum(b, image.Castagnoli))
		if _, err := f.WriteAt(b, int64(off)); err != nil {
			return nil, fmt.Errorf("writing pages: %w", err)
		}
		if progress != nil {
			progress(int64(len(b)))
		}
	}
	return s, nil
}

// Store reads a checkpoint's pages.
type Store struct {
	files []*storeFile
	total uint64
}

type storeFile struct {
	*fm.StoreFile
	base  uint64
	mem   []byte
	mu    sync.Mutex
	state []bool // chunks that were summed and are right
}

// Open maps the files that a manifest names, and refuses those that are not of
// the size they had.
func Open(dir string, files []*fm.StoreFile) (_ *Store, err error) {
	s := &Store{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, d := range files {
		if d.GetName() != filepath.Base(d.GetName()) || d.GetChunk() == 0 || uint64(len(d.GetCrc())) != (d.GetSize()+uint64(d.GetChunk())-1)/uint64(d.GetChunk()) {
			return nil, fault.Errorf(fault.ErrDamaged, "page store %q: description does not fit", d.GetName())
		}
		f, err := os.Open(filepath.Join(dir, d.GetName()))
		if err != nil {
			return nil, fault.Wrap(fault.ErrDamaged, fmt.Errorf("page store: %w", err))
		}
		st, err := f.Stat()
		if err == nil && st.Size() != int64(d.GetSize()) {
			err = fault.Errorf(fault.ErrDamaged, "page store %s/%s: %d bytes where %d were written", dir, d.GetName(), st.Size(), d.GetSize())
		}
		sf := &storeFile{StoreFile: d, base: s.total, state: make([]bool, len(d.GetCrc()))}
		if err == nil && d.GetSize() > 0 {
			sf.mem, err = unix.Mmap(int(f.Fd()), 0, int(d.GetSize()), unix.PROT_READ, unix.MAP_SHARED)
		}
		f.Close()
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, sf)
		s.total += d.GetSize()
	}
	return s, nil
}

// Close unmaps the store.
func (s *Store) Close() {
	for _, f := range s.files {
		if f.mem != nil {
			unix.Munmap(f.mem)
			f.mem = nil
		}
	}
}

// Size gives the store's bytes.
func (s *Store) Size() uint64 { return s.total }

// At gives n bytes of the store from off on, or fewer where a file ends, after
// their chunks' checksums were found right. They are mapped from the page
// cache and valid until Close.
func (s *Store) At(off, n uint64) ([]byte, error) {
	i := sort.Search(len(s.files), func(i int) bool { return off < s.files[i].base+s.files[i].GetSize() })
	if i == len(s.files) {
		return nil, fault.Errorf(fault.ErrDamaged, "page store: offset %#x beyond its end %#x", off, s.total)
	}
	f := s.files[i]
	from := off - f.base
	to := min(from+n, f.GetSize())
	if err := f.check(from, to); err != nil {
		return nil, err
	}
	return f.mem[from:to:to], nil
}

func (f *storeFile) check(from, to uint64) error {
	c := uint64(f.GetChunk())
	for i := from / c; i*c < to; i++ {
		f.mu.Lock()
		ok := f.state[i]
		f.mu.Unlock()
		if ok {
			continue
		}
		b := f.mem[i*c : min((i+1)*c, f.GetSize())]
		if crc32.Checksum(b, image.Castagnoli) != f.GetCrc()[i] {
			return fault.Errorf(fault.ErrDamaged, "page store %s: bytes %#x to %#x are not what was written (checksum)", f.GetName(), i*c, i*c+uint64(len(b)))
		}
		f.mu.Lock()
		f.state[i] = true
		f.mu.Unlock()
	}
	return nil
}

// Verify sums every chunk.
func (s *Store) Verify(progress func(int64)) error {
	for _, f := range s.files {
		for off := uint64(0); off < f.GetSize(); off += uint64(f.GetChunk()) {
			end := min(off+uint64(f.GetChunk()), f.GetSize())
			if err := f.check(off, end); err != nil {
				return err
			}
			if progress != nil {
				progress(int64(end - off))
			}
		}
	}
	return nil
}
