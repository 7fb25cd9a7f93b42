package fermata

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/criu/imgdir"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// newImageDraft is newDraft for a directory of plain images, which exists and
// may have other files in it. What is written lies in a directory of its own
// until it is whole.
func newImageDraft(final string) (*draft, error) {
	st, err := os.Stat(final)
	if err != nil {
		return nil, fault.Wrap(fault.ErrUsage, err)
	}
	if !st.IsDir() {
		return nil, fault.Errorf(fault.ErrUsage, "%s is not a directory", final)
	}
	if err := unix.Access(final, unix.W_OK|unix.X_OK); err != nil {
		return nil, fault.Wrap(fault.ErrPermission, fmt.Errorf("%s: %w", final, err))
	}
	parent := filepath.Join(final, imgdir.ParentName)
	if _, err := os.Lstat(parent); err != nil {
		parent = ""
	}
	return &draft{final: final, images: true, parent: parent, dir: filepath.Join(final, fmt.Sprintf(".partial-%d", os.Getpid()))}, nil
}

// writeImagePages writes the memory: mem when it was read already, else straight
// out of the tasks.
func (d *draft) writeImagePages(c *checkpoint, mem []byte, done func(int64)) (err error) {
	fill := c.out.Fill
	if mem != nil {
		fill = func(off uint64, b []byte) error {
			if n := copy(b, mem[min(off, uint64(len(mem))):]); n < len(b) {
				return fmt.Errorf("no page at %#x", off+uint64(n))
			}
			return nil
		}
	}
	vdso, err := tracee.OwnVdso()
	if err != nil {
		return err
	}
	began := time.Now()
	var to *imgdir.Remote
	if c.opt.PageServer != nil {
		to = imgdir.ToServer(c.opt.PageServer)
	}
	d.imagePages, err = imgdir.WritePages(c.col.Image, d.dir, d.parent, to, func(off uint64, b []byte) error {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		return fill(off, b)
	}, vdso, done)
	d.writing = time.Since(began)
	return err
}

// publishImages writes the metadata and gives the files their names, that of the
// inventory last.
func (d *draft) publishImages(c *checkpoint) error {
	if err := d.make(); err != nil {
		return err
	}
	faultpoint.At("draft.meta")
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	runID := hex.EncodeToString(id[:])
	write := imgdir.Export
	if c.opt.PagesOnly {
		write = imgdir.ExportPages
	}
	if err := write(c.col.Image, d.dir, runID); err != nil {
		return err
	}
	frozen := c.frozen
	if frozen == 0 {
		frozen = time.Since(c.tree.Began())
	}
	if err := imgdir.WriteDumpStats(d.dir, d.imagePages, c.freezing, frozen, d.writing); err != nil {
		return err
	}
	if err := d.readBack(c.opt.PagesOnly || c.opt.PageServer != nil); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	names, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	// The one that makes it a checkpoint comes last.
	sort.SliceStable(names, func(i, j int) bool {
		return names[i].Name() != imgdir.InventoryName && names[j].Name() == imgdir.InventoryName
	})
	faultpoint.At("draft.publish")
	// What an earlier dump left there is none any more.
	if err := os.Remove(filepath.Join(d.final, imgdir.InventoryName)); err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, n := range names {
		if n.IsDir() {
			continue // contents of files, which are in the images now
		}
		if err := os.Rename(filepath.Join(d.dir, n.Name()), filepath.Join(d.final, n.Name())); err != nil {
			return fmt.Errorf("publishing %s: %w", d.final, err)
		}
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return err
	}
	faultpoint.At("draft.published")
	d.made, d.published = false, true
	d.settleNames()
	d.debt.Done()
	return nil
}

// readBack finds out whether a restore would understand what was written.
func (d *draft) readBack(pagesOnly bool) error {
	if pagesOnly {
		return nil
	}
	if d.parent != "" {
		// Where the directory is now, the parent is one step further away.
		target, err := filepath.EvalSymlinks(d.parent)
		if err != nil {
			return err
		}
		link := filepath.Join(d.dir, imgdir.ParentName)
		if err := os.Symlink(target, link); err != nil {
			return err
		}
		defer os.Remove(link)
	}
	src, err := imgdir.Import(d.dir)
	if err != nil {
		return err
	}
	src.Store.Close()
	return nil
}
