package resource

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	ghostfile "github.com/checkpoint-restore/go-criu/v8/crit/images/ghost-file"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/regfile"
	remapfilepath "github.com/checkpoint-restore/go-criu/v8/crit/images/remap-file-path"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/faultpoint"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/journal"
)

// Files whose name is gone, at the restore: all of them are made, under their
// old names where those are free, opened as often as the program had them open,
// and their names removed again, in one go. So a directory that was removed with
// what was in it comes back as a whole, and every link of /proc reads as before.
//
// A file's content is written before it gets its name (O_TMPFILE), so that the
// name exists for microseconds; mode, owner and times come last, for they could
// stand in the way.

// remapped gives what stands for the path of a file, or nil.
func (r *Restore) remapped(id uint32) (*remapfilepath.RemapFilePathEntry, error) {
	m, err := RestoreValue(r, remapKey{}, func() (map[uint32]*remapfilepath.RemapFilePathEntry, error) {
		m := map[uint32]*remapfilepath.RemapFilePathEntry{}
		all, err := image.All[*remapfilepath.RemapFilePathEntry](r.Image, "remap-file-path")
		for _, e := range all {
			m[e.GetOrigId()] = e
		}
		return m, err
	})
	return m[id], err
}

type remapKey struct{}

// ghostInode is one inode without its name, and its descriptions.
type ghostInode struct {
	entry  *ghostfile.GhostFileEntry // nil with linked
	extra  *fm.FileExtra             // of the file that it was saved from
	linked string                    // its other name
	files  []*fdinfo.FileEntry
	base   int               // O_PATH descriptor, or one that can write
	at     map[string]string // where each of its old names is now
}

func (g *ghostInode) isDir() bool {
	return g.entry != nil && g.entry.GetMode()&unix.S_IFMT == unix.S_IFDIR
}

// path gives the old name of a description.
func ghostPath(e *fdinfo.FileEntry) string { return e.GetReg().GetName() }

// checkGhost finds what a file without a name lacks.
func (r *Restore) checkGhost(m *remapfilepath.RemapFilePathEntry, reg *regfile.RegFileEntry, x *fm.FileExtra) error {
	if m.GetRemapType() == remapfilepath.RemapType_LINKED {
		other := &regfile.RegFileEntry{Name: x.LinkPath, Flags: reg.Flags, Size: reg.Size, Mode: reg.Mode}
		return r.checkPath(other, x)
	}
	src := r.Extra(m.GetRemapId())
	if src.GetSaved() == "" {
		return nil
	}
	if _, err := os.Stat(r.Dir + "/" + src.GetSaved()); err != nil {
		return fault.Errorf(fault.ErrDamaged, "%s (deleted): its saved content: %w", reg.GetName(), err)
	}
	return nil
}

// openGhosts makes and opens every file without a name.
func (r *Restore) openGhosts() error {
	_, err := RestoreValue(r, ghostsKey{}, func() (bool, error) {
		all, err := r.ghostInodes()
		if err != nil {
			return false, err
		}
		f := &farm{r: r, moved: map[string]string{}}
		err = f.raise(all)
		f.clean()
		if err == nil {
			err = f.finish(all)
		}
		for _, g := range all {
			if g.base >= 0 {
				unix.Close(g.base)
			}
		}
		return err == nil, err
	})
	return err
}

type ghostsKey struct{}

// openGhost gives the descriptor of one of them.
func (r *Restore) openGhost(id uint32) (int, error) {
	if err := r.openGhosts(); err != nil {
		return -1, err
	}
	fd, ok := r.fds[id]
	if !ok {
		return -1, fault.Errorf(fault.ErrDamaged, "a file without a name that was not made")
	}
	return fd, nil
}

// ghostInodes gathers them: directories first, outer before inner.
func (r *Restore) ghostInodes() ([]*ghostInode, error) {
	type key struct {
		ghost  uint32
		linked string
	}
	var all []*ghostInode
	by := map[key]*ghostInode{}
	for _, id := range r.order {
		e := r.entries[id]
		m, err := r.remapped(id)
		if err != nil {
			return nil, err
		}
		if m == nil || e.GetReg() == nil {
			continue
		}
		k := key{ghost: m.GetRemapId()}
		if m.GetRemapType() == remapfilepath.RemapType_LINKED {
			k = key{linked: r.Extra(id).GetLinkPath()}
		}
		g := by[k]
		if g == nil {
			g = &ghostInode{base: -1, at: map[string]string{}, linked: k.linked, extra: r.Extra(id)}
			if k.linked == "" {
				g.extra = r.Extra(k.ghost)
				if g.entry, err = image.One[*ghostfile.GhostFileEntry](r.Image, image.Of("ghost-file", int(k.ghost))); err != nil {
					return nil, err
				}
			}
			by[k] = g
			all = append(all, g)
		}
		g.files = append(g.files, e)
	}
	sort.SliceStable(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if a.isDir() != b.isDir() {
			return a.isDir()
		}
		return a.isDir() && len(ghostPath(a.files[0])) < len(ghostPath(b.files[0]))
	})
	return all, nil
}

// farm is where files without a name stand while they are opened.
type farm struct {
	r     *Restore
	moved map[string]string // directories that stand under another name
	gone  []func()          // removes what was made
}

func (f *farm) raise(all []*ghostInode) error {
	for _, g := range all {
		for _, e := range g.files {
			if err := f.name(g, ghostPath(e)); err != nil {
				return fmt.Errorf("%s (deleted): %w", ghostPath(e), err)
			}
		}
		if err := f.open(g); err != nil {
			return err
		}
	}
	return nil
}

// clean removes every name again.
func (f *farm) clean() {
	for i := len(f.gone) - 1; i >= 0; i-- {
		f.gone[i]()
	}
	f.gone = nil
}

// finish gives the inodes their attributes, now that nothing happens in them.
func (f *farm) finish(all []*ghostInode) error {
	for _, g := range all {
		if g.entry == nil || g.base < 0 || g.entry.GetMode()&unix.S_IFMT == unix.S_IFLNK {
			continue
		}
		if err := setAttributes(g.base, g.entry.GetMode(), g.extra); err != nil {
			return fmt.Errorf("%s (deleted): %w", ghostPath(g.files[0]), err)
		}
	}
	return nil
}

// name makes one of an inode's old names exist.
func (f *farm) name(g *ghostInode, path string) error {
	if g.at[path] != "" {
		return nil
	}
	where, err := f.place(path)
	if err == nil {
		where, err = f.make(g, where)
	}
	if err != nil && g.linked != "" {
		// Its text in /proc is then its other name's.
		where, err = g.linked, nil
	}
	if err != nil && g.base < 0 {
		was := err
		if where, err = f.make(g, filepath.Join(os.TempDir(), ".fermata-ghost")); err != nil {
			return errors.Join(was, err)
		}
		f.r.note("%s (deleted) is now in %s: %v", path, os.TempDir(), was)
	}
	if err != nil {
		return err
	}
	g.at[path] = where
	if g.isDir() {
		f.moved[path] = where
	}
	return nil
}

// place gives the name for an old path, with all directories above it.
func (f *farm) place(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fault.Errorf(fault.ErrDamaged, "not an absolute path")
	}
	dir, err := f.dir(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(path)), nil
}

// dir makes sure that a directory exists, or what stands for it.
func (f *farm) dir(path string) (string, error) {
	if m := f.moved[path]; m != "" {
		return m, nil
	}
	parent := path
	if path != "/" {
		var err error
		if parent, err = f.dir(filepath.Dir(path)); err != nil {
			return "", err
		}
		parent = filepath.Join(parent, filepath.Base(path))
	}
	var st unix.Stat_t
	err := unix.Lstat(parent, &st)
	switch {
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return "", fmt.Errorf("%s: %w", parent, unix.ENOTDIR)
	case errors.Is(err, unix.ENOENT):
		if err := f.create(parent, func(path string) error { return unix.Mkdir(path, 0o700) }); err != nil {
			return "", fmt.Errorf("%s: %w", parent, err)
		}
	case err != nil:
		return "", fmt.Errorf("%s: %w", parent, err)
	}
	return parent, nil
}

// make gives an inode a name, at or, when it is taken, beside where; the inode
// is made at the first call.
func (f *farm) make(g *ghostInode, where string) (string, error) {
	for try := 0; ; try++ {
		err := f.makeAt(g, where)
		if err == nil {
			return where, nil
		}
		if !errors.Is(err, unix.EEXIST) || try > 100 || g.linked != "" {
			return "", err
		}
		where = filepath.Join(filepath.Dir(where), journal.TempPrefix+rand.Text())
	}
}

func (f *farm) makeAt(g *ghostInode, where string) error {
	var err error
	switch {
	case g.linked != "":
		err = f.link(g.linked, where, 0)
	case g.isDir():
		if err = f.create(where, func(path string) error { return unix.Mkdir(path, 0o700) }); err == nil {
			g.base, err = unix.Open(where, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
	case g.base >= 0:
		err = f.link(selfFD(g.base), where, unix.AT_SYMLINK_FOLLOW)
	case g.entry.GetMode()&unix.S_IFMT == unix.S_IFREG:
		err = f.makeRegular(g, where)
	default:
		if err = f.create(where, func(path string) error { return makeNode(g, path) }); err == nil {
			g.base, err = unix.Open(where, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	return nil
}

// guard is GuardName, which may be nil.
func (f *farm) guard(name string, dev, ino uint64) (gone func()) {
	if f.r.GuardName == nil {
		return func() {}
	}
	return f.r.GuardName(name, dev, ino)
}

// link gives an inode that exists a name, until clean.
func (f *farm) link(from, where string, flags int) error {
	var st unix.Stat_t
	stat := unix.Lstat
	if flags&unix.AT_SYMLINK_FOLLOW != 0 {
		stat = unix.Stat
	}
	if err := stat(from, &st); err != nil {
		return err
	}
	gone := f.guard(where, uint64(st.Dev), st.Ino)
	if err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, where, flags); err != nil {
		gone()
		return err
	}
	f.named(where, false, gone)
	return nil
}

// named notes a name that was made.
func (f *farm) named(where string, dir bool, gone func()) {
	f.gone = append(f.gone, func() {
		if dir {
			_ = unix.Rmdir(where)
		} else {
			_ = unix.Unlink(where)
		}
		gone()
	})
	faultpoint.At("ghost.named")
}

// create makes an inode with a name, until clean. Its first name says that it is
// fermata's; once the inode is known it gets the other, if that is free.
func (f *farm) create(where string, create func(path string) error) error {
	first := filepath.Join(filepath.Dir(where), journal.TempPrefix+rand.Text())
	gone := f.guard(first, 0, 0)
	defer gone()
	if err := create(first); err != nil {
		return err
	}
	faultpoint.At("ghost.created")
	var st unix.Stat_t
	err := unix.Lstat(first, &st)
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if err == nil {
		known := f.guard(where, uint64(st.Dev), st.Ino)
		if err = unix.Renameat2(unix.AT_FDCWD, first, unix.AT_FDCWD, where, unix.RENAME_NOREPLACE); err == nil {
			f.named(where, isDir, known)
			return nil
		}
		known()
	}
	if isDir {
		_ = unix.Rmdir(first)
	} else {
		_ = unix.Unlink(first)
	}
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	// The file system does not know RENAME_NOREPLACE (renameat2(2)).
	if err := create(where); err != nil {
		return err
	}
	if err := unix.Lstat(where, &st); err != nil {
		return err
	}
	f.named(where, isDir, f.guard(where, uint64(st.Dev), st.Ino))
	return nil
}

// makeRegular makes a file with its content, and tells whether it has the name.
// O_TMPFILE (Linux 3.11) is not known to all file systems; there the file has
// its name from the start.
func (f *farm) makeRegular(g *ghostInode, where string) error {
	if e := tmpfile(g); e != nil {
		return f.makeTmpfile(g, e, filepath.Dir(where))
	}
	fd, err := unix.Open(filepath.Dir(where), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	unnamed := err == nil
	if !unnamed {
		err = f.create(where, func(path string) (err error) {
			fd, err = unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err = f.r.fill(fd, g.extra, int64(g.entry.GetSize())); err == nil && unnamed {
		err = f.link(selfFD(fd), where, unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	g.base = fd
	return nil
}

// tmpfile gives the description of an inode that was opened with O_TMPFILE, or
// nil. Such a file comes back without ever having a name, so that the program
// can still give it one by linkat(2): for a file that was unlinked the kernel
// forbids that, and it forgets about O_TMPFILE at the first link.
func tmpfile(g *ghostInode) *fdinfo.FileEntry {
	for _, e := range g.files {
		if e.GetReg().GetFlags()&unix.O_TMPFILE == unix.O_TMPFILE && e.GetReg().GetFlags()&unix.O_ACCMODE != unix.O_RDONLY {
			return e
		}
	}
	return nil
}

// makeTmpfile makes a file by the flags of its own description.
func (f *farm) makeTmpfile(g *ghostInode, e *fdinfo.FileEntry, dir string) error {
	reg := e.GetReg()
	fd, err := unix.Open(dir, int(reg.GetFlags())&keptFlags|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("O_TMPFILE: %w", err)
	}
	if g.base, err = unix.Open(selfFD(fd), unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		if err = f.r.fill(g.base, g.extra, int64(g.entry.GetSize())); err == nil {
			err = setOffset(fd, int64(reg.GetPos()))
		}
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	f.r.Set(e.GetId(), fd)
	return nil
}

func selfFD(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

func makeNode(g *ghostInode, where string) error {
	switch t := g.entry.GetMode() & unix.S_IFMT; t {
	case unix.S_IFLNK:
		return unix.Symlink(g.entry.GetSymlnkTarget(), where)
	case unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
		return unix.Mknod(where, t|0o600, int(g.entry.GetRdev()))
	default:
		return fault.Errorf(fault.ErrDamaged, "mode %o", t)
	}
}

// open opens the descriptions of an inode, each by its own old name.
func (f *farm) open(g *ghostInode) error {
	if g.files[0].GetType() == fdinfo.FdTypes_FIFO {
		return f.r.openFifo(g.files, g.at[ghostPath(g.files[0])])
	}
	for _, e := range g.files {
		reg := e.GetReg()
		name := g.at[reg.GetName()]
		flags := int(reg.GetFlags()) & keptFlags
		if _, ok := f.r.fds[e.GetId()]; ok {
			continue
		}
		if tmpfile(g) != nil {
			name = selfFD(g.base)
			flags &^= unix.O_DIRECTORY | unix.O_NOFOLLOW
		}
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s (deleted): open: %w", reg.GetName(), err)
		}
		x := f.r.Extra(e.GetId())
		if g.linked != "" {
			other := &regfile.RegFileEntry{Name: &g.linked, Flags: reg.Flags, Size: reg.Size, Mode: reg.Mode, Pos: reg.Pos}
			err = f.r.opened(fd, other, x)
			if b := filepath.Base(g.linked); strings.HasPrefix(b, LinkPrefix) || strings.HasPrefix(b, criuLinkPrefix) {
				f.dropLink(g.linked)
			}
		} else if flags&unix.O_PATH == 0 {
			if err = setOffset(fd, int64(reg.GetPos())); err != nil && g.isDir() {
				f.r.note("%s (deleted): %v", reg.GetName(), err)
				err = nil
			}
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("%s (deleted): %w", reg.GetName(), err)
		}
		f.r.Set(e.GetId(), fd)
	}
	return nil
}

// dropLink removes a hidden link once the restore has succeeded.
func (f *farm) dropLink(name string) {
	_, _ = RestoreValue(f.r, dropKey{name}, func() (bool, error) {
		f.r.atCommit(func() error {
			if err := unix.Unlink(name); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
		return true, nil
	})
}

type dropKey struct{ name string }
