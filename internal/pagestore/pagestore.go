// Package pagestore keeps the pages of a checkpoint: plain files of page
// contents, one address space of offsets over all of them, with a CRC-32C for
// every chunk. Plain files can be mapped as they are.
package pagestore

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

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
