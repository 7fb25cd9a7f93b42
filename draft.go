package fermata

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/chain"
	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/criu/imgdir"
	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/journal"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/rebuild"
	"github.com/fermata-cr/fermata/internal/resource"
	"github.com/fermata-cr/fermata/internal/tracee"
)

// Version is fermata's version, noted in every checkpoint.
const Version = "0.1.0"

// draft is a checkpoint that is not whole yet: a directory beside the final
// one, under a name that no reader takes for a checkpoint.
type draft struct {
	final, dir string
	// images: final is there already, and plain image files go into it.
	images     bool
	parent     string // image directory that has pages already, or ""
	imagePages *imgdir.Pages
	made       bool
	begun      chan struct{} // closed when begin has done what it does
	beginErr   error
	published  bool
	durable    bool // everything is to be on the disk before it has its name
	pages      []*fm.StoreFile
	below      *chain.Parent // the checkpoint that this one builds upon, or nil
	id         [16]byte      // this checkpoint's
	saved      []*fm.SavedFile
	contents   []content
	files      *resource.Dump
	bytes      int64         // of the checkpoint's files
	written    int64         // of these, pages that were written now
	writing    time.Duration // of the pages
	journal    *journal.Journal
	debt       *journal.Entry
	names      []*journal.Entry
}

type content struct {
	name string
	file *resource.File
}

// newDraft checks the place; nothing is written before the checkpoint is known
// to be possible.
func newDraft(final string, layout Layout) (*draft, error) {
	final = filepath.Clean(final)
	if layout == LayoutImages {
		return newImageDraft(final)
	}
	if _, err := os.Lstat(final); err == nil {
		return nil, fault.Errorf(fault.ErrUsage, "%s exists already", final)
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return nil, err
	}
	parent := filepath.Dir(final)
	st, err := os.Stat(parent)
	if err != nil || !st.IsDir() {
		return nil, fault.Errorf(fault.ErrUsage, "%s: no such directory", parent)
	}
	if err := unix.Access(parent, unix.W_OK|unix.X_OK); err != nil {
		return nil, fault.Wrap(fault.ErrPermission, fmt.Errorf("%s: %w", parent, err))
	}
	return &draft{final: final, dir: fmt.Sprintf("%s.partial-%d", final, os.Getpid())}, nil
}

// attach hears what the collection wants to travel in the checkpoint.
func (d *draft) attach(c *collect.Collector, o CheckpointOptions) {
	d.files, d.durable = c.Files, o.Durable
	c.Files.SaveFiles, c.Files.HideLinks = o.SaveFiles, d.images
	c.Files.TCPOutside, c.Files.SkipInFlight = o.TCPEstablished, o.SkipInFlight
	c.Files.LockNetwork = o.After == AfterKill && !o.NoNetworkLock
	c.Files.Content = func(name string, f *resource.File) error {
		d.contents = append(d.contents, content{name, f})
		return nil
	}
	c.Files.MemfdContent = c.MemfdContent
	c.Files.GuardLink = func(name string, dev, ino uint64) {
		d.names = append(d.names, d.journal.AddText(journal.Link, name, dev, ino))
	}
}

func (d *draft) hasFiles() bool { return len(d.contents) > 0 }

// begin makes the directory and the metadata's file, empty, in the background: a
// file system takes its time for that, and there are other things to do. It is
// only called once nothing can be refused any more.
func (d *draft) begin() {
	if d.images || d.made {
		return
	}
	d.begun = make(chan struct{})
	go func() {
		defer close(d.begun)
		if d.beginErr = d.makeDir(); d.beginErr != nil {
			return
		}
		f, err := os.OpenFile(filepath.Join(d.dir, image.MetaName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			err = f.Close()
		}
		d.beginErr = err
	}()
}

// awaitBegun waits for begin.
func (d *draft) awaitBegun() error {
	if d.begun != nil {
		<-d.begun
	}
	return d.beginErr
}

func (d *draft) make() error {
	if err := d.awaitBegun(); err != nil || d.made {
		return err
	}
	return d.makeDir()
}

func (d *draft) makeDir() error {
	// Known to the guardian before it is there; the inode afterwards.
	dir, err := filepath.Abs(d.dir)
	if err != nil {
		return err
	}
	final, err := filepath.Abs(d.final)
	if err != nil {
		return err
	}
	d.debt = d.journal.AddText(journal.Draft, dir+"\x00"+final)
	faultpoint.At("draft.make")
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		d.debt.Done()
		return err
	}
	faultpoint.At("draft.made")
	d.made = true
	var st unix.Stat_t
	if err := unix.Lstat(d.dir, &st); err != nil {
		return err
	}
	d.debt.Set(0, uint64(st.Dev))
	d.debt.Set(1, st.Ino)
	return nil
}

// writePages writes the memory: mem when it was read already, else straight out
// of the tasks.
func (d *draft) writePages(c *checkpoint, mem []byte) (err error) {
	if err := d.make(); err != nil {
		return err
	}
	total := c.out.Total()
	done := func(n int64) {
		faultpoint.At("draft.page")
		d.journal.Beat()
		c.progress("memory", c.done.Add(n), int64(total))
	}
	if d.images {
		d.bytes += int64(total)
		return d.writeImagePages(c, mem, done)
	}
	o := pagestore.Options{Progress: done, Compression: c.opt.Compression, Dedup: c.opt.Dedup || c.out.Blind(), Durable: c.opt.Durable}
	if d.below != nil {
		o.First, o.Parent = d.below.FirstFree(), d.below.Store
		if o.Twins, err = d.below.Twins(c.col.Image, c.col.Tracks); err != nil {
			return err
		}
	}
	var w *pagestore.Written
	if mem != nil {
		w, err = pagestore.WriteMemory(d.dir, mem, o)
	} else {
		w, err = pagestore.Write(d.dir, total, func(off uint64, b []byte) error {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			return c.out.Fill(off, b)
		}, o)
	}
	if err != nil {
		return err
	}
	return d.settlePages(c, w)
}

// settlePages makes the image point to where its pages lie now, and takes in the
// files of the parent that they lie in.
func (d *draft) settlePages(c *checkpoint, w *pagestore.Written) error {
	runs, err := chain.Runs(c.col.Image)
	if err != nil {
		return err
	}
	for _, f := range w.Files {
		d.written += pagestore.Stored(f)
	}
	if d.below == nil {
		d.pages, _ = w.Settle(nil, runs)
	} else {
		var keep []int
		d.pages, keep = w.Settle(d.below.Store, runs)
		faultpoint.At("draft.adopt")
		note, err := d.below.Adopt(d.dir, keep)
		if err != nil {
			return err
		}
		for _, i := range keep {
			if err := d.flush(filepath.Join(d.dir, d.below.Manifest.GetStores()[i].GetName())); err != nil {
				return err
			}
		}
		if note != "" {
			c.notes = append(c.notes, note)
		}
		for _, f := range d.pages[:len(keep)] {
			if f.Of == nil {
				f.Of = d.below.Manifest.GetId()
			}
		}
	}
	for _, f := range d.pages {
		d.bytes += pagestore.Stored(f)
	}
	return nil
}

// writeFiles copies the contents of files that travel in the checkpoint.
func (d *draft) writeFiles() error {
	if d.hasFiles() {
		if err := d.make(); err != nil {
			return err
		}
	}
	for _, x := range d.contents {
		faultpoint.At("draft.file")
		d.journal.Beat()
		path := filepath.Join(d.dir, x.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		s, err := d.files.CopyContent(f, x.file)
		if err == nil {
			err = d.flush(path, filepath.Dir(path))
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
		d.saved = append(d.saved, s)
		d.bytes += int64(s.GetSize())
	}
	return nil
}

// publish writes the metadata, reads it back, and gives the checkpoint its
// name.
func (d *draft) publish(c *checkpoint, mono, boot, real int64) error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	threads := 0
	m := &fm.Manifest{
		Version: proto.Uint32(image.Version), Tool: proto.String(Version), Arch: proto.String(runtime.GOARCH),
		Kernel: proto.String(unix.ByteSliceToString(uts.Release[:])), BootId: proto.String(rebuild.BootID()),
		Hostname: proto.String(unix.ByteSliceToString(uts.Nodename[:])), CreatedNs: proto.Int64(real),
		MonotonicNs: proto.Int64(mono), BoottimeNs: proto.Int64(boot),
		Tasks: proto.Uint32(uint32(len(c.tree.Processes))), PageBytes: proto.Uint64(c.out.Total() + c.col.Kept()),
		Stores: d.pages, Saved: d.saved, FrozenNs: proto.Uint64(uint64(c.frozen)),
	}
	if _, err := rand.Read(d.id[:]); err != nil {
		return err
	}
	m.Id = d.id[:]
	if len(c.track.next) > 0 {
		m.Tracked = proto.Bool(true)
	}
	if d.below != nil {
		m.Parent, m.ParentId, m.Links = proto.String(d.below.Dir), d.below.Manifest.GetId(), proto.Uint32(d.below.Links())
	}
	for _, r := range c.roots {
		m.Roots = append(m.Roots, uint32(r))
	}
	for _, p := range c.tree.Processes {
		threads += max(1, len(p.Threads))
	}
	m.Threads = proto.Uint32(uint32(threads))
	if vdso, err := tracee.OwnVdso(); err == nil {
		sum := sha256.Sum256(vdso)
		m.VdsoSha256 = sum[:]
	}
	c.col.Cgroups()
	c.col.Image.Replace("manifest", m)
	if d.images {
		return d.publishImages(c)
	}
	b, err := c.col.Image.Encode()
	if err != nil {
		return err
	}
	d.bytes += int64(len(b))
	if err := d.make(); err != nil {
		return err
	}
	faultpoint.At("draft.meta")
	path := filepath.Join(d.dir, image.MetaName)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	if err := d.flush(path, d.dir); err != nil {
		return err
	}
	back, err := image.Read(d.dir)
	if err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	if len(back.Names()) != len(c.col.Image.Names()) {
		return fmt.Errorf("reading back: %d parts where %d were written", len(back.Names()), len(c.col.Image.Names()))
	}
	faultpoint.At("draft.publish")
	// Nobody else may have taken the name meanwhile.
	if err := unix.Renameat2(unix.AT_FDCWD, d.dir, unix.AT_FDCWD, d.final, unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("publishing %s: %w", d.final, err)
	}
	faultpoint.At("draft.published")
	d.made, d.published = false, true
	if err := d.flush(filepath.Dir(d.final)); err != nil {
		c.notes = append(c.notes, fmt.Sprintf("the checkpoint is whole, but its name may not survive the machine: %v", err))
	}
	// The names stay, so they go from the journal before the draft does.
	d.settleNames()
	d.debt.Done()
	return nil
}

// flush has files and directories written to the disk, if that is wanted.
func (d *draft) flush(paths ...string) error {
	if !d.durable {
		return nil
	}
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// discard removes what was written.
func (d *draft) discard() {
	_ = d.awaitBegun()
	if d.files != nil && !d.published {
		d.files.Abort()
		d.settleNames()
	}
	if d.made && os.RemoveAll(d.dir) == nil {
		d.made = false
		d.debt.Done()
	}
}

// settleNames crosses out what hidden links were owed.
func (d *draft) settleNames() {
	for _, e := range d.names {
		e.Done()
	}
	d.names = nil
}
