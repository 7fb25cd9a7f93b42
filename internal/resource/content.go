package resource

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// copyPiece is how many bytes are moved at a time.
const copyPiece = 1 << 20

// CopySparse appends the data of a file of size bytes to dst, leaving out its
// holes (SEEK_DATA, SEEK_HOLE; lseek(2)), and gives where in the file each run
// of the data belongs and the CRC-32C of what was written. It reads with
// pread(2): the offset of srcfd stays, unless the file system finds holes by
// moving it, so srcfd must not be a description that a program shares.
func CopySparse(dst *os.File, srcfd int, size int64) (extents []*fm.Extent, crc uint32, err error) {
	buf := make([]byte, min(copyPiece, max(size, 1)))
	for at := int64(0); at < size; {
		from, to, err := dataAt(srcfd, at, size)
		if err != nil {
			return nil, 0, err
		}
		if from >= size {
			break
		}
		extents = append(extents, &fm.Extent{Off: proto.Uint64(uint64(from)), Len: proto.Uint64(uint64(to - from))})
		for at = from; at < to; {
			n, err := unix.Pread(srcfd, buf[:min(int64(len(buf)), to-at)], at)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return nil, 0, fmt.Errorf("reading at %d: %w", at, err)
			}
			if n == 0 {
				return nil, 0, fmt.Errorf("reading at %d of %d bytes: %w", at, size, io.ErrUnexpectedEOF)
			}
			crc = crc32.Update(crc, image.Castagnoli(), buf[:n])
			if _, err := dst.Write(buf[:n]); err != nil {
				return nil, 0, err
			}
			at += int64(n)
		}
	}
	return extents, crc, nil
}

// dataAt gives the next run of data at or after at; from is size when there is
// none.
func dataAt(fd int, at, size int64) (from, to int64, err error) {
	from, err = unix.Seek(fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL):
		return at, size, nil // a file system that knows no holes
	case err != nil:
		return 0, 0, fmt.Errorf("looking for data at %d: %w", at, err)
	}
	to, err = unix.Seek(fd, from, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("looking for a hole at %d: %w", from, err)
	}
	return from, min(to, size), nil
}

// CopyContent writes what a Content call asked for: the bytes of f, packed,
// into dst, whose name it notes in the manifest's form. The tasks must stand
// still. It leaves no trace: the file is opened anew, its access time stays.
func (d *Dump) CopyContent(dst *os.File, f *File) (*fm.SavedFile, error) {
	src, err := openQuiet(f)
	if err != nil {
		return nil, fmt.Errorf("pid %d: %s: reading its content: %w", f.PID, f, err)
	}
	defer unix.Close(src)
	ext, crc, err := CopySparse(dst, src, f.Stat.Size)
	if err != nil {
		return nil, fmt.Errorf("pid %d: %s: saving its content: %w", f.PID, f, err)
	}
	x := d.Extra(f)
	x.Extents = ext
	var n uint64
	for _, e := range ext {
		n += e.GetLen()
	}
	return &fm.SavedFile{Name: proto.String(x.GetSaved()), Size: proto.Uint64(n), Crc: proto.Uint32(crc)}, nil
}

// openQuiet opens a file for reading by a description of its own.
func openQuiet(f *File) (int, error) {
	fd, err := unix.Open(f.Path(), unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		// Not our file: only its owner may keep the access time.
		fd, err = unix.Open(f.Path(), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	return fd, err
}

// fill makes the content of a file what the checkpoint saved of it.
func (r *Restore) fill(fd int, x *fm.FileExtra, size int64) error {
	if !filepath.IsLocal(x.GetSaved()) {
		return fault.Errorf(fault.ErrDamaged, "saved content %q", x.GetSaved())
	}
	src, err := r.saved(x.GetSaved())
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return fault.Errorf(fault.ErrDamaged, "its saved content is missing: %w", err)
		}
		return err
	}
	defer src.Close()
	// Twice: first away with everything, so that holes are holes again.
	if err := unix.Ftruncate(fd, 0); err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return err
	}
	buf := make([]byte, copyPiece)
	crc := uint32(0)
	for _, e := range r.extents(x) {
		at, left := int64(e.GetOff()), int64(e.GetLen())
		if at < 0 || left < 0 || at > size || left > size-at {
			return fault.Errorf(fault.ErrDamaged, "saved content lies outside of the file")
		}
		for left > 0 {
			n, err := io.ReadFull(src, buf[:min(left, copyPiece)])
			if err != nil {
				return fault.Errorf(fault.ErrDamaged, "%s: %w", x.GetSaved(), err)
			}
			crc = crc32.Update(crc, image.Castagnoli(), buf[:n])
			if err := pwriteAll(fd, buf[:n], at); err != nil {
				return err
			}
			at, left = at+int64(n), left-int64(n)
		}
	}
	if want, ok := r.savedCRC(x.GetSaved()); ok && want != crc {
		return fault.Errorf(fault.ErrDamaged, "%s: checksum differs", x.GetSaved())
	}
	return nil
}

// saved opens a saved content.
func (r *Restore) saved(name string) (io.ReadCloser, error) {
	if r.Saved != nil {
		return r.Saved(name)
	}
	return image.Open(r.Dir + "/" + name)
}

// checkSaved compares the saved contents with what the manifest says of them:
// before any file of the user's is replaced by one that is damaged.
func (r *Restore) checkSaved() error {
	all, err := image.All[*fm.Manifest](r.Image, "manifest")
	if err != nil {
		return err
	}
	for _, m := range all {
		for _, s := range m.GetSaved() {
			if err := r.checkOne(s); err != nil {
				return fault.Wrap(fault.ErrDamaged, fmt.Errorf("saved content %s: %w", s.GetName(), err))
			}
		}
	}
	return nil
}

func (r *Restore) checkOne(s *fm.SavedFile) error {
	if !filepath.IsLocal(s.GetName()) {
		return errors.New("its name leads out of the checkpoint")
	}
	f, err := r.saved(s.GetName())
	if err != nil {
		return err
	}
	defer f.Close()
	h := crc32.New(image.Castagnoli())
	n, err := io.Copy(h, f)
	switch {
	case err != nil:
		return err
	case uint64(n) != s.GetSize():
		return fmt.Errorf("%d bytes where %d were written", n, s.GetSize())
	case h.Sum32() != s.GetCrc():
		return errors.New("checksum differs")
	}
	return nil
}

func pwriteAll(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}

type savedKey struct{}

// extents gives where saved content belongs; several descriptions of one inode
// share it, and only one has the list.
func (r *Restore) extents(x *fm.FileExtra) []*fm.Extent {
	if len(x.Extents) > 0 {
		return x.Extents
	}
	for _, o := range r.extras {
		if o.GetSaved() == x.GetSaved() && len(o.Extents) > 0 {
			return o.Extents
		}
	}
	return nil
}

// savedCRC gives the checksum of a saved content, when the image has a manifest.
func (r *Restore) savedCRC(name string) (uint32, bool) {
	m, err := RestoreValue(r, savedKey{}, func() (map[string]uint32, error) {
		m := map[string]uint32{}
		all, err := image.All[*fm.Manifest](r.Image, "manifest")
		if err != nil {
			return nil, err
		}
		for _, a := range all {
			for _, s := range a.Saved {
				m[s.GetName()] = s.GetCrc()
			}
		}
		return m, nil
	})
	crc, ok := m[name]
	return crc, err == nil && ok
}

type inodeKey struct{ dev, ino uint64 }
type savedInodeKey inodeKey

// savedName names the content of an inode, which is saved once; first tells
// that f is the file to save it from.
func (d *Dump) savedName(f *File) (name string, first bool) {
	name, _ = Value(d, savedInodeKey{f.Stat.Dev, f.Stat.Ino}, func() (string, error) {
		first = true
		return fmt.Sprintf("files/%d", f.ID), nil
	})
	return name, first
}

// saveContent has the content of a file open for writing saved, when it is
// wanted.
func (d *Dump) saveContent(f *File, at place) error {
	if !d.SaveFiles || d.Content == nil || at.pseudo != "" || at.deleted ||
		f.Stat.Mode&unix.S_IFMT != unix.S_IFREG || f.Info.Flags&unix.O_PATH != 0 || f.Info.Flags&unix.O_ACCMODE == unix.O_RDONLY {
		return nil
	}
	return d.save(f)
}

func (d *Dump) save(f *File) error {
	name, first := d.savedName(f)
	x := d.Extra(f)
	x.Saved = proto.String(name)
	x.Uid, x.Gid = proto.Uint32(f.Stat.Uid), proto.Uint32(f.Stat.Gid)
	x.AtimeNs = proto.Int64(f.Stat.Atim.Nano())
	if !first {
		return nil
	}
	if d.Content == nil {
		return fmt.Errorf("its content has no place in the checkpoint")
	}
	src, err := openQuiet(f)
	if errors.Is(err, unix.EACCES) {
		d.Refusal(f, "its content would have to travel in the checkpoint, and its mode does not let you read it", "run fermata as root")
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading its content: %w", err)
	}
	unix.Close(src)
	return d.Content(name, f)
}
