package rebuild

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/memfd"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/resource"
)

// What a program wishes for its memory, it says by the names of memfds
// (docs/for-programs.md). Content that is left out is not in the image; mappings
// that are to be left out are, and are passed over here.

// heedNames takes areas of memfds that are not to be mapped out of the tree.
func (b *builder) heedNames() error {
	inodes, err := image.All[*memfd.MemfdInodeEntry](b.im, "memfd-inodes")
	if err != nil {
		return err
	}
	unmap := map[uint32]bool{} // by inode
	for _, m := range inodes {
		if resource.UnmapMemfd(m.GetName()) {
			unmap[uint32(m.GetInodeId())] = true
		}
	}
	if len(unmap) == 0 {
		return nil
	}
	files, err := image.All[*fdinfo.FileEntry](b.im, "files")
	if err != nil {
		return err
	}
	gone := map[uint32]bool{} // by file
	for _, f := range files {
		if f.GetType() == fdinfo.FdTypes_MEMFD && unmap[f.GetMemfd().GetInodeId()] {
			gone[f.GetId()] = true
		}
	}
	for _, p := range b.procs {
		p.areas = slices.DeleteFunc(p.areas, func(a area) bool { return a.is(collect.VMAMemfd) && gone[a.file()] })
	}
	return nil
}

// countRestore adds one to the number at the beginning of a file.
func countRestore(fd int) error {
	var b [8]byte
	if n, err := unix.Pread(fd, b[:], 0); err != nil || n != len(b) {
		return nil // too small to count
	}
	le.PutUint64(b[:], le.Uint64(b[:])+1)
	if _, err := unix.Pwrite(fd, b[:], 0); err != nil {
		return fmt.Errorf("counting the restore: %w", err)
	}
	return nil
}
