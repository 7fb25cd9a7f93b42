package pagestore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// Store reads a checkpoint's pages. Its files are read, not mapped: an error of
// the storage comes back as an error, where a mapping would end the process by
// SIGBUS; and a chunk read into a buffer that stays in the processor's cache
// costs less than page faults on the file.
type Store struct {
	files []*storeFile
	total uint64
}

type storeFile struct {
	*fm.StoreFile
	base uint64
	f    *os.File
	at   []uint64      // of a file with a codec: where each chunk is stored, and where the last ends
	good []atomic.Bool // chunks that were summed and are right; nil: there are no sums
}

// Open opens the files that a manifest names, and refuses those that are not of
// the size they had.
func Open(dir string, files []*fm.StoreFile) (*Store, error) {
	return OpenWith(files, func(name string) (*os.File, error) { return image.Open(filepath.Join(dir, name)) })
}

// OpenWith is Open of files that open gives; the store closes them.
func OpenWith(files []*fm.StoreFile, open func(name string) (*os.File, error)) (_ *Store, err error) {
	s := &Store{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, d := range files {
		if !sensible(d, s.total) {
			return nil, fault.Errorf(fault.ErrDamaged, "page store %q: description does not fit", d.GetName())
		}
		f, err := open(d.GetName())
		if err != nil {
			return nil, fault.Wrap(fault.ErrDamaged, fmt.Errorf("page store: %w", err))
		}
		x := &storeFile{StoreFile: d, base: s.total, f: f, good: make([]atomic.Bool, len(d.GetCrc()))}
		s.files = append(s.files, x)
		s.total += d.GetSize()
		if d.GetCodec() != 0 {
			x.at = make([]uint64, 1, len(d.GetStored())+1)
			for i, n := range d.GetStored() {
				x.at = append(x.at, x.at[i]+uint64(n))
			}
		}
		st, err := f.Stat()
		if want := Stored(d); err == nil && st.Size() != want {
			err = fault.Errorf(fault.ErrDamaged, "page store %s: %d bytes where %d were written", f.Name(), st.Size(), want)
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// maxChunk bounds what one chunk makes a reader take into memory.
const maxChunk = 64 << 20

// sensible tells whether a file can be as it is described, behind base bytes of
// others.
func sensible(d *fm.StoreFile, base uint64) bool {
	size, chunk := d.GetSize(), uint64(d.GetChunk())
	if d.GetName() != filepath.Base(d.GetName()) || chunk == 0 || chunk > maxChunk || size > 1<<60 || base+size > 1<<60 {
		return false
	}
	n := (size + chunk - 1) / chunk
	if uint64(len(d.GetCrc())) != n {
		return false
	}
	if d.GetCodec() == 0 {
		return len(d.GetStored()) == 0
	}
	if d.GetCodec() > uint32(Zstd) || uint64(len(d.GetStored())) != n {
		return false
	}
	for i, k := range d.GetStored() {
		if k == 0 || uint64(k) > min(chunk, size-uint64(i)*chunk) {
			return false
		}
	}
	return true
}

// Stored gives the bytes that a file of a store has.
func Stored(d *fm.StoreFile) (n int64) {
	if d.GetCodec() == 0 {
		return int64(d.GetSize())
	}
	for _, k := range d.GetStored() {
		n += int64(k)
	}
	return n
}

// OpenPlain opens files of page contents as one store, in their order. There are
// no checksums to compare.
func OpenPlain(paths []string) (_ *Store, err error) {
	s := &Store{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, fault.Wrap(fault.ErrDamaged, fmt.Errorf("page store: %w", err))
		}
		d := &fm.StoreFile{Name: proto.String(path), Size: proto.Uint64(0), Chunk: proto.Uint32(Chunk)}
		s.files = append(s.files, &storeFile{StoreFile: d, base: s.total, f: f})
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		d.Size = proto.Uint64(uint64(st.Size()))
		s.total += d.GetSize()
	}
	return s, nil
}

// Close closes the store's files.
func (s *Store) Close() {
	for _, f := range s.files {
		f.f.Close()
	}
	s.files = nil
}

// Size gives the store's bytes.
func (s *Store) Size() uint64 { return s.total }

// Has tells whether all of a range of offsets is there, in the files or as zeros.
func (s *Store) Has(off, n uint64) bool {
	return off >= Zero || off <= s.total && n <= s.total-off
}

// Files gives the open files, in the order of their offsets; they stay the
// store's.
func (s *Store) Files() (out []*os.File) {
	for _, f := range s.files {
		out = append(out, f.f)
	}
	return out
}

// Reader reads a store for one goroutine, through a buffer of its own.
type Reader struct {
	s     *Store
	file  *storeFile // what the buffer holds:
	start uint64     // from here in the file on,
	held  []byte     // these bytes
	buf   []byte
	raw   []byte // a chunk as it is stored, of a file with a codec
}

// buffers are mapped memory, which never moves and is given to system calls by
// its address, and is expensive to touch for the first time.
var buffers = sync.Pool{New: func() any {
	b, err := unix.Mmap(-1, 0, Chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return []byte(nil)
	}
	return b
}}

// NewReader begins to read; Close must follow.
func (s *Store) NewReader() *Reader { return &Reader{s: s} }

// Close gives the buffer back.
func (r *Reader) Close() {
	if len(r.buf) == Chunk {
		buffers.Put(r.buf)
	}
	r.buf, r.held = nil, nil
}

// find gives the number of the file that has an offset; there is none such
// beyond the end.
func (s *Store) find(off uint64) int {
	return sort.Search(len(s.files), func(i int) bool { return off < s.files[i].base+s.files[i].GetSize() })
}

// nothing is what pages of zeros have. Nobody writes to it.
var nothing [Chunk]byte

// At gives n bytes of the store from off on, or fewer where a chunk or a file
// ends, after their chunk's checksum was found right. They are valid until the
// next call.
func (r *Reader) At(off, n uint64) ([]byte, error) {
	if off >= Zero {
		return nothing[:min(n, Chunk)], nil
	}
	i := r.s.find(off)
	if i == len(r.s.files) {
		return nil, fault.Errorf(fault.ErrDamaged, "page store: offset %#x beyond its end %#x", off, r.s.total)
	}
	f := r.s.files[i]
	from := off - f.base
	c := uint64(f.GetChunk())
	chunk := from / c
	end := min((chunk+1)*c, f.GetSize())
	to := min(from+n, end)
	if r.file != f || from < r.start || to > r.start+uint64(len(r.held)) {
		if f.at != nil {
			if err := r.unpack(f, chunk, end-chunk*c); err != nil {
				return nil, err
			}
			return r.held[from-r.start : to-r.start : to-r.start], nil
		}
		// Of a chunk that is known to be right only what is wanted is read.
		start, stop := chunk*c, end
		known := f.good == nil || f.good[chunk].Load()
		if known {
			start, stop = from, to
		}
		if err := r.read(f, start, stop); err != nil {
			return nil, err
		}
		if !known {
			if crc32.Checksum(r.held, image.Castagnoli()) != f.GetCrc()[chunk] {
				r.file = nil
				return nil, fault.Errorf(fault.ErrDamaged, "page store %s: bytes %#x to %#x are not what was written (checksum)", f.f.Name(), start, stop)
			}
			f.good[chunk].Store(true)
		}
	}
	return r.held[from-r.start : to-r.start : to-r.start], nil
}

// unpack fills the buffer with a chunk of n bytes of a file with a codec.
func (r *Reader) unpack(f *storeFile, chunk, n uint64) error {
	r.reserve(int(n))
	from, size := f.at[chunk], f.at[chunk+1]-f.at[chunk]
	if uint64(len(r.raw)) < size {
		r.raw = make([]byte, max(size, packedChunk))
	}
	stored := r.raw[:size]
	if err := f.pread(stored, from); err != nil {
		return err
	}
	bad := func(why error) error {
		return fault.Errorf(fault.ErrDamaged, "page store %s: bytes %#x to %#x are not what was written (%w)", f.f.Name(), from, from+size, why)
	}
	if !f.good[chunk].Load() {
		if crc32.Checksum(stored, image.Castagnoli()) != f.GetCrc()[chunk] {
			return bad(errors.New("checksum"))
		}
		f.good[chunk].Store(true)
	}
	if err := unpack(Codec(f.GetCodec()), r.buf[:n:n], stored); err != nil {
		return bad(err)
	}
	r.file, r.start, r.held = f, chunk*uint64(f.GetChunk()), r.buf[:n]
	return nil
}

// reserve makes room for n bytes; the buffer holds nothing then.
func (r *Reader) reserve(n int) {
	r.file = nil
	if len(r.buf) < n {
		r.Close()
		if n <= Chunk {
			r.buf = buffers.Get().([]byte)
		}
		if len(r.buf) < n { // a store with larger chunks
			r.buf = make([]byte, n)
		}
	}
}

// read fills the buffer with bytes of a plain file.
func (r *Reader) read(f *storeFile, start, stop uint64) error {
	n := int(stop - start)
	r.reserve(n)
	r.held = r.buf[:n]
	if err := f.pread(r.held, start); err != nil {
		return err
	}
	r.file, r.start = f, start
	return nil
}

// pread fills b with the file's bytes from start on.
func (f *storeFile) pread(b []byte, start uint64) error {
	for done := 0; done < len(b); {
		k, err := unix.Pread(int(f.f.Fd()), b[done:], int64(start)+int64(done))
		switch {
		case err == unix.EINTR:
		case err == nil && k == 0:
			return fault.Errorf(fault.ErrDamaged, "page store %s: it ends at %#x: %w", f.f.Name(), start+uint64(done), io.ErrUnexpectedEOF)
		case err != nil:
			return fault.Wrap(fault.ErrDamaged, fmt.Errorf("page store %s: reading at %#x: %w", f.f.Name(), start+uint64(done), err))
		}
		done += max(k, 0)
	}
	return nil
}

// Verify sums every chunk.
func (s *Store) Verify(progress func(int64)) error {
	r := s.NewReader()
	defer r.Close()
	for off := uint64(0); off < s.total; {
		b, err := r.At(off, Chunk)
		if err != nil {
			return err
		}
		off += uint64(len(b))
		if progress != nil {
			progress(int64(len(b)))
		}
	}
	return nil
}
