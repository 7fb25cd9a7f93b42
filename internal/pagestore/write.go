package pagestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// Options steer writing.
type Options struct {
	// First is the number of the first new file.
	First int
	// Parent is the store of an earlier checkpoint, and Twins, in ascending order,
	// say which pages to compare with which of its pages: those that are the same
	// byte for byte are not written.
	Parent *Store
	Twins  []Twin
	// Context, if not nil, ends the writing.
	Context context.Context
	// Dedup finds equal pages and writes them once. Src is read a second time where
	// pages seem to be equal, and must give the same bytes then.
	Dedup bool
	// Durable: the files are on the disk when writing is done. Plain ones are written
	// past the page cache then (O_DIRECT, open(2)), which the disk would have to
	// catch up with.
	Durable bool
	// Compression is how the new files are stored.
	Compression Compression
	// Progress, if not nil, gets the bytes of each finished piece.
	Progress func(int64)
}

// Twin are bytes to be written that the parent may have: at Parent in its store.
type Twin struct{ Off, Len, Parent uint64 }

// Written says what became of the bytes that were to be written.
type Written struct {
	Files []*fm.StoreFile // new ones, in the order of their offsets
	Zeros uint64          // bytes of pages that had nothing but zeros
	Equal uint64          // bytes of pages that are equal to others
	Same  uint64          // bytes that the parent has
	moves []move
}

// move is where a range of bytes came to lie: in the new files, taken together,
// from Zero or from Below on.
type move struct{ from, len, to uint64 }

// Write writes total bytes from src into new files of dir. Pages of zeros are
// left out. Settle must follow: offsets are others afterwards.
func Write(dir string, total uint64, src Source, o Options) (*Written, error) {
	return write(dir, total, func() (source, func(), error) {
		buf, err := unix.Mmap(-1, 0, Chunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil, nil, err
		}
		next := func(off, n uint64) ([]byte, error) { return buf[:n], src(off, buf[:n]) }
		return next, func() { unix.Munmap(buf) }, nil
	}, src, o)
}

// WriteMemory writes bytes that are in this process's memory already.
func WriteMemory(dir string, mem []byte, o Options) (*Written, error) {
	return write(dir, uint64(len(mem)), func() (source, func(), error) {
		return func(off, n uint64) ([]byte, error) { return mem[off : off+n], nil }, func() {}, nil
	}, func(off uint64, b []byte) error { copy(b, mem[off:]); return nil }, o)
}

// source gives n bytes from off on, valid until its next call.
type source func(off, n uint64) ([]byte, error)

// write has a writer for each file.
func write(dir string, total uint64, reader func() (source, func(), error), src Source, o Options) (*Written, error) {
	var seen *pageTable
	if o.Dedup {
		seen = newPageTable(src)
	}
	sizes := Layout(total)
	out := make([]*writer, len(sizes))
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
			out[i] = &writer{dir: dir, name: fmt.Sprintf("pages-%d", o.First+i), o: &o, enc: encoder{c: o.Compression}, seen: seen}
			errs[i] = out[i].run(at, size, next)
		}
		if i == len(sizes)-1 {
			work()
			break
		}
		wg.Go(work)
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	w := &Written{}
	base = 0
	for _, x := range out {
		for _, m := range x.moves {
			switch {
			case m.to >= Zero:
				w.Zeros += m.len
			case m.to >= Below:
				w.Same += m.len
			case m.to >= again:
				w.Equal += m.len
			default:
				m.to += base
			}
			w.moves = append(w.moves, m)
		}
		if x.pos > 0 {
			w.Files = append(w.Files, x.describe())
		}
		base += x.pos
	}
	if w.Equal > 0 {
		w.moves = resolve(w.moves)
	}
	return w, nil
}

// writer writes one file.
type writer struct {
	dir, name string
	o         *Options
	f         *os.File
	pos       uint64 // bytes of content so far
	disk      uint64 // bytes of the file so far
	crc       uint32 // of its last chunk so far
	crcs      []uint32
	vec       [][]byte // to be written at disk
	enc       encoder
	chunk     []byte   // of a file with a codec: what is not packed yet
	packed    []byte   // and what is not written yet
	stored    []uint32 // bytes of each packed chunk
	moves     []move
	twin      int // the first of o.Twins that is not behind
	below     *Reader
	seen      *pageTable // nil: equal pages are not looked for
	scratch   []byte
	to        [Chunk / sys.PageSize]uint64 // for each page of a piece: where it lies, or 0 when it must be written
}

func (w *writer) run(at, size uint64, next source) (err error) {
	defer func() {
		if w.f != nil {
			if cerr := w.f.Close(); err == nil {
				err = cerr
			}
		}
		if w.below != nil {
			w.below.Close()
		}
		w.enc.close()
		if w.scratch != nil {
			unix.Munmap(w.scratch)
		}
	}()
	for off := at; off < at+size; off += Chunk {
		if w.o.Context != nil && w.o.Context.Err() != nil {
			return w.o.Context.Err()
		}
		b, err := next(off, min(Chunk, at+size-off))
		if err == nil {
			err = w.piece(off, b)
		}
		if err != nil {
			return err
		}
		if w.o.Progress != nil {
			w.o.Progress(int64(len(b)))
		}
	}
	switch {
	case len(w.chunk) > 0:
		if err := w.pack(w.chunk); err != nil {
			return err
		}
		if err := w.flush(); err != nil {
			return err
		}
	case w.enc.c.Codec == Plain && w.pos%Chunk != 0:
		w.crcs = append(w.crcs, w.crc)
	}
	if w.o.Durable && w.f != nil {
		return w.f.Sync()
	}
	return nil
}

func (w *writer) describe() *fm.StoreFile {
	f := &fm.StoreFile{Name: proto.String(w.name), Size: proto.Uint64(w.pos), Chunk: proto.Uint32(uint32(w.enc.c.chunkSize())), Crc: w.crcs}
	if w.enc.c.Codec != Plain {
		f.Codec, f.Stored = proto.Uint32(uint32(w.enc.c.Codec)), w.stored
	}
	return f
}

var zeros [sys.PageSize]byte

// piece writes what must be written of some pages, and notes where all of them
// are.
func (w *writer) piece(off uint64, b []byte) error {
	any := false
	for i := range len(b) / sys.PageSize {
		w.to[i] = 0
		if bytes.Equal(b[i*sys.PageSize:(i+1)*sys.PageSize], zeros[:]) {
			w.to[i], any = Zero, true
		}
	}
	if same, err := w.compare(off, b); err != nil {
		return err
	} else if same {
		any = true
	}
	if w.seen != nil {
		if same, err := w.equal(off, b); err != nil {
			return err
		} else if same {
			any = true
		}
	}
	if !any {
		if err := w.keep(off, b); err != nil {
			return err
		}
	} else {
		from := 0 // pages from here on must be written
		for i := range len(b) / sys.PageSize {
			if w.to[i] == 0 {
				continue
			}
			if err := w.keep(off+uint64(from)*sys.PageSize, b[from*sys.PageSize:i*sys.PageSize]); err != nil {
				return err
			}
			w.move(off+uint64(i)*sys.PageSize, sys.PageSize, w.to[i])
			from = i + 1
		}
		if err := w.keep(off+uint64(from)*sys.PageSize, b[from*sys.PageSize:]); err != nil {
			return err
		}
	}
	return w.flush()
}

// keep takes bytes into the file: sums them and has them written.
func (w *writer) keep(off uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	w.move(off, uint64(len(b)), w.pos)
	if w.enc.c.Codec != Plain {
		w.pos += uint64(len(b))
		return w.gather(b)
	}
	w.vec = append(w.vec, b)
	for len(b) > 0 {
		n := min(uint64(len(b)), Chunk-w.pos%Chunk)
		w.crc = crc32.Update(w.crc, image.Castagnoli(), b[:n])
		w.pos += n
		if w.pos%Chunk == 0 {
			w.crcs, w.crc = append(w.crcs, w.crc), 0
		}
		b = b[n:]
	}
	return nil
}

// gather packs whole chunks and keeps the rest.
func (w *writer) gather(b []byte) error {
	for len(b) > 0 {
		if len(w.chunk) == 0 && len(b) >= packedChunk {
			if err := w.pack(b[:packedChunk]); err != nil {
				return err
			}
			b = b[packedChunk:]
			continue
		}
		n := min(len(b), packedChunk-len(w.chunk))
		w.chunk, b = append(w.chunk, b[:n]...), b[n:]
		if len(w.chunk) == packedChunk {
			if err := w.pack(w.chunk); err != nil {
				return err
			}
			w.chunk = w.chunk[:0]
		}
	}
	return nil
}

// pack packs one chunk; the sum is that of what is stored.
func (w *writer) pack(chunk []byte) (err error) {
	at := len(w.packed)
	if w.packed, err = w.enc.pack(w.packed, chunk); err != nil {
		return err
	}
	w.stored = append(w.stored, uint32(len(w.packed)-at))
	w.crcs = append(w.crcs, crc32.Checksum(w.packed[at:], image.Castagnoli()))
	return nil
}

func (w *writer) move(from, n, to uint64) {
	if l := len(w.moves); l > 0 {
		m := &w.moves[l-1]
		if m.from+m.len == from && (m.to+m.len == to || m.to == Zero && to == Zero) {
			m.len += n
			return
		}
	}
	w.moves = append(w.moves, move{from, n, to})
}

// flush writes what was kept.
func (w *writer) flush() error {
	if len(w.packed) > 0 {
		w.vec = append(w.vec, w.packed)
		w.packed = w.packed[:0]
	}
	if len(w.vec) == 0 {
		return nil
	}
	if w.f == nil {
		f, err := os.OpenFile(filepath.Join(w.dir, w.name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		w.f = f
		if w.o.Durable && w.enc.c.Codec == Plain {
			// Pages in memory and in the file are aligned as it wants them. Not
			// every file system knows it.
			_, _ = unix.FcntlInt(f.Fd(), unix.F_SETFL, unix.O_DIRECT)
		}
	}
	vec, from := w.vec, w.disk
	w.vec = w.vec[:0]
	defer func() {
		if w.o.Durable && w.enc.c.Codec != Plain {
			// The disk begins now, not when all is packed. That it has it is for
			// the end (Sync) to say.
			_ = unix.SyncFileRange(int(w.f.Fd()), int64(from), int64(w.disk-from), unix.SYNC_FILE_RANGE_WRITE)
		}
	}()
	for len(vec) > 0 {
		n, err := unix.Pwritev(int(w.f.Fd()), vec, int64(w.disk))
		if err == unix.EINTR {
			continue
		}
		if fl, ferr := unix.FcntlInt(w.f.Fd(), unix.F_GETFL, 0); err == unix.EINVAL && ferr == nil && fl&unix.O_DIRECT != 0 {
			// Blocks larger than a page.
			if _, err := unix.FcntlInt(w.f.Fd(), unix.F_SETFL, 0); err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("writing pages: %w", &os.PathError{Op: "write", Path: w.f.Name(), Err: err})
		}
		w.disk += uint64(n)
		for len(vec) > 0 && n >= len(vec[0]) {
			n -= len(vec[0])
			vec = vec[1:]
		}
		if n > 0 {
			vec[0] = vec[0][n:]
		}
	}
	return nil
}

// compare finds the pages of a piece that the parent has, too. Only bytes that
// are equal count: nothing that is noted about a page can become stale.
func (w *writer) compare(off uint64, b []byte) (any bool, err error) {
	twins := w.o.Twins
	end := off + uint64(len(b))
	for w.twin < len(twins) && twins[w.twin].Off+twins[w.twin].Len <= off {
		w.twin++
	}
	for i := w.twin; i < len(twins) && twins[i].Off < end; i++ {
		if w.below == nil {
			w.below = w.o.Parent.NewReader()
		}
		t := twins[i]
		from, to := max(t.Off, off), min(t.Off+t.Len, end)
		for from < to {
			there := t.Parent + from - t.Off
			old, err := w.below.At(there, to-from)
			if err != nil {
				return false, fmt.Errorf("the parent checkpoint: %w", err)
			}
			for k := 0; k+sys.PageSize <= len(old); k += sys.PageSize {
				at := from - off + uint64(k)
				if p := at / sys.PageSize; w.to[p] == 0 && bytes.Equal(old[k:k+sys.PageSize], b[at:at+sys.PageSize]) {
					w.to[p], any = Below+there+uint64(k), true
				}
			}
			n := uint64(len(old)) &^ (sys.PageSize - 1)
			if n == 0 {
				break // its file ends inside a page: not one that we wrote
			}
			from += n
		}
	}
	return any, nil
}
