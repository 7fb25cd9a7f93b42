// Package chain lets a checkpoint build upon an earlier one, its parent. What the
// parent has already is not written again: the parent's files that hold it get a
// second name (link(2)) in the new checkpoint's directory. So every checkpoint is
// whole by itself: nothing has to be looked up elsewhere to restore it, a parent
// can be removed at any time, and the space is given back with the last
// checkpoint that needs it.
package chain

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/sys"
)

const (
	// MaxFiles bounds the files of a store: a restore has them all open, and each
	// checkpoint of a chain adds one or two.
	MaxFiles = 64
	// A file is kept whole for the sake of one page. A parent whose files have
	// wasteFactor times what it needs, and more than wasteFrom bytes, is not built
	// upon any more.
	wasteFactor = 3
	wasteFrom   = 64 << 20
)

// Parent is a checkpoint that another builds upon, open.
type Parent struct {
	Dir      string
	Image    *image.Image
	Manifest *fm.Manifest
	Store    *pagestore.Store
	spaces   map[int]*fm.PageRuns
	objects  map[objectKey]*fm.PageRuns
}

type objectKey struct {
	kind uint32
	id   uint64
}

// Open opens the checkpoint in dir to build upon it. Its files stay readable
// until Close, whoever removes it meanwhile. Errors are those of reading a
// checkpoint: fault.ErrNotFound, fault.ErrDamaged, fault.ErrPermission.
func Open(dir string) (_ *Parent, err error) {
	p := &Parent{Dir: dir, spaces: map[int]*fm.PageRuns{}, objects: map[objectKey]*fm.PageRuns{}}
	defer func() {
		if err != nil {
			p.Close()
			err = fmt.Errorf("the parent checkpoint: %w", err)
		}
	}()
	if p.Image, err = image.Read(dir); err != nil {
		return nil, err
	}
	if p.Manifest, err = image.One[*fm.Manifest](p.Image, "manifest"); err != nil {
		return nil, err
	}
	if p.Store, err = pagestore.Open(dir, p.Manifest.GetStores()); err != nil {
		return nil, err
	}
	for _, pid := range p.Image.NamesOf("pages") {
		if p.spaces[pid], err = image.One[*fm.PageRuns](p.Image, image.Of("pages", pid)); err != nil {
			return nil, err
		}
	}
	objects, err := image.All[*fm.ShmObject](p.Image, "shm")
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if o.GetPages() != nil {
			p.objects[objectKey{o.GetKind(), o.GetId()}] = o.GetPages()
		}
	}
	for _, r := range p.runs() {
		if err := Check(r, p.Store); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *Parent) runs() (all []*fm.PageRuns) {
	for _, r := range p.spaces {
		all = append(all, r)
	}
	for _, r := range p.objects {
		all = append(all, r)
	}
	return all
}

// Close closes the parent's files.
func (p *Parent) Close() {
	if p != nil && p.Store != nil {
		p.Store.Close()
	}
}

// Worn tells why no further checkpoint should build upon this one, "" when one
// may: chains are bounded.
func (p *Parent) Worn() string {
	n, size := len(p.Manifest.GetStores()), p.Store.Size()
	switch {
	case n+2 > MaxFiles:
		return fmt.Sprintf("its pages lie in %d files already", n)
	case size > wasteFrom && size > wasteFactor*p.Manifest.GetPageBytes():
		return fmt.Sprintf("its files have %d MiB, of which it needs %d", size>>20, p.Manifest.GetPageBytes()>>20)
	}
	return ""
}

// Matches tells whether any process of an image was in the parent, too: has the
// same pid and runs the same file.
func (p *Parent) Matches(im *image.Image) error {
	theirs, err := programs(p.Image)
	if err != nil {
		return fmt.Errorf("the parent checkpoint: %w", err)
	}
	ours, err := programs(im)
	if err != nil {
		return err
	}
	for pid, exe := range ours {
		if was, ok := theirs[pid]; ok && was == exe {
			return nil
		}
	}
	return fault.Errorf(fault.ErrUsage, "%s is a checkpoint of another program: no process of this one is in it", p.Dir)
}

// programs gives the executable of each process of an image.
func programs(im *image.Image) (map[int]string, error) {
	tasks, err := image.All[*pstree.PstreeEntry](im, "pstree")
	if err != nil {
		return nil, err
	}
	out := map[int]string{}
	for _, t := range tasks {
		pid := int(t.GetPid())
		x, err := image.One[*fm.TaskExtra](im, image.Of("task-extra", pid))
		if err != nil {
			return nil, err
		}
		out[pid] = strings.TrimSuffix(x.GetExe(), " (deleted)")
	}
	return out, nil
}

// Space gives the pages of the address space whose first process is pid, nil when
// the parent has none.
func (p *Parent) Space(pid int) *fm.PageRuns { return p.spaces[pid] }

// Object gives the pages of a shared memory object of the same kind and id, nil
// when the parent has none.
func (p *Parent) Object(o *fm.ShmObject) *fm.PageRuns {
	return p.objects[objectKey{o.GetKind(), o.GetId()}]
}

// Keep notes in runs, as the parent's, those pages of [start,end) that are in the
// parent's list: the caller knows that they are as they were. What the parent
// does not have goes to rest. Both lists are in ascending order.
func Keep(runs, parent *fm.PageRuns, start, end uint64, rest func(start, end uint64) error) error {
	v := parent.GetVaddr()
	i := sort.Search(len(v), func(i int) bool { return v[i]+parent.GetPages()[i]*sys.PageSize > start })
	for ; start < end; i++ {
		if i == len(v) || v[i] >= end {
			return rest(start, end)
		}
		if v[i] > start {
			if err := rest(start, v[i]); err != nil {
				return err
			}
			start = v[i]
		}
		to := min(v[i]+parent.GetPages()[i]*sys.PageSize, end)
		off := parent.GetOff()[i] + start - v[i]
		if off < pagestore.Zero {
			off += pagestore.Below
		}
		pagestore.AppendRun(runs, start, off, (to-start)/sys.PageSize)
		start = to
	}
	return nil
}

// Runs gives every list of pages of an image.
func Runs(im *image.Image) (all []*fm.PageRuns, err error) {
	for _, pid := range im.NamesOf("pages") {
		r, err := image.One[*fm.PageRuns](im, image.Of("pages", pid))
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	objects, err := image.All[*fm.ShmObject](im, "shm")
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if o.GetPages() != nil {
			all = append(all, o.GetPages())
		}
	}
	return all, nil
}

// Twins pairs the pages of an image, which are still to be written, with those
// that the parent has at the same address of the same process, or at the same
// place of the same object; without those of processes that skip, when it is not nil,
// names.
func (p *Parent) Twins(im *image.Image, skip func(pid int) bool) (out []pagestore.Twin, err error) {
	for _, pid := range im.NamesOf("pages") {
		if skip != nil && skip(pid) {
			continue
		}
		r, err := image.One[*fm.PageRuns](im, image.Of("pages", pid))
		if err != nil {
			return nil, err
		}
		out = pair(out, r, p.spaces[pid])
	}
	objects, err := image.All[*fm.ShmObject](im, "shm")
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		out = pair(out, o.GetPages(), p.Object(o))
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Off < out[j].Off })
	// What several processes share is looked at once.
	var end uint64
	kept := out[:0]
	for _, t := range out {
		if t.Off < end {
			d := min(end-t.Off, t.Len)
			t.Off, t.Len, t.Parent = t.Off+d, t.Len-d, t.Parent+d
		}
		if t.Len > 0 {
			kept = append(kept, t)
			end = t.Off + t.Len
		}
	}
	return kept, nil
}

// pair appends the pages that are in both lists.
func pair(out []pagestore.Twin, ours, theirs *fm.PageRuns) []pagestore.Twin {
	k := 0
	for i, at := range ours.GetVaddr() {
		off, end := ours.GetOff()[i], at+ours.GetPages()[i]*sys.PageSize
		if off >= pagestore.Below {
			continue
		}
		for k < len(theirs.GetVaddr()) && theirs.GetVaddr()[k]+theirs.GetPages()[k]*sys.PageSize <= at {
			k++
		}
		for j := k; j < len(theirs.GetVaddr()) && theirs.GetVaddr()[j] < end; j++ {
			v := theirs.GetVaddr()[j]
			from, to := max(v, at), min(v+theirs.GetPages()[j]*sys.PageSize, end)
			if theirs.GetOff()[j] < pagestore.Below {
				out = append(out, pagestore.Twin{Off: off + from - at, Len: to - from, Parent: theirs.GetOff()[j] + from - v})
			}
		}
	}
	return out
}

// Check finds out whether a list of pages is one: in ascending order, of whole
// pages, all of them in the store.
func Check(r *fm.PageRuns, s *pagestore.Store) error {
	if len(r.GetPages()) != len(r.GetVaddr()) || len(r.GetOff()) != len(r.GetVaddr()) {
		return fault.Errorf(fault.ErrDamaged, "a list of pages is cut off")
	}
	var end uint64
	for i, at := range r.GetVaddr() {
		n, off := r.GetPages()[i], r.GetOff()[i]
		if at%sys.PageSize != 0 || off%sys.PageSize != 0 || at < end || n == 0 || n > (1<<60)/sys.PageSize || at >= 1<<60 {
			return fault.Errorf(fault.ErrDamaged, "a list of pages has %d at %#x: not in order", n, at)
		}
		if off >= pagestore.Zero && off != pagestore.Zero+at || !s.Has(off, n*sys.PageSize) {
			return fault.Errorf(fault.ErrDamaged, "page at %#x: the store has nothing at %#x", at, off)
		}
		end = at + n*sys.PageSize
	}
	return nil
}

// FirstFree gives a number that no file of the parent has in its name.
func (p *Parent) FirstFree() (n int) {
	for _, f := range p.Manifest.GetStores() {
		if s, ok := strings.CutPrefix(f.GetName(), "pages-"); ok {
			if k, err := strconv.Atoi(s); err == nil && k < 1<<30 {
				n = max(n, k+1)
			}
		}
	}
	return n
}

// Adopt gives files of the parent, by their numbers, a name in dir. Where they
// cannot have one (another file system), they are copied, and the note says so.
func (p *Parent) Adopt(dir string, keep []int) (note string, err error) {
	var why error
	var copied int64
	for _, i := range keep {
		f := p.Store.Files()[i]
		to := filepath.Join(dir, p.Manifest.GetStores()[i].GetName())
		// By the descriptor: what was read and compared is what is linked.
		err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
		if err == nil {
			continue
		}
		if err == unix.EEXIST || err == unix.ENOSPC || err == unix.EDQUOT || err == unix.EROFS {
			return "", &os.LinkError{Op: "link", Old: f.Name(), New: to, Err: err}
		}
		// EXDEV; EMLINK; EPERM where a file system has no links or somebody else's
		// file may not be linked; ENOENT when it has lost its last name meanwhile.
		why = err
		n, err := Copy(to, f)
		if err != nil {
			return "", fmt.Errorf("copying %s: %w", f.Name(), err)
		}
		copied += n
	}
	if why != nil {
		note = fmt.Sprintf("%d MiB of %s were copied: its files cannot belong to two checkpoints here (%v)", copied>>20, p.Dir, why)
	}
	return note, nil
}

// Copy copies a file into a new one.
func Copy(to string, from *os.File) (n int64, err error) {
	st, err := from.Stat()
	if err != nil {
		return 0, err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	buf := make([]byte, 1<<20)
	for n < st.Size() {
		k, err := from.ReadAt(buf[:min(int64(len(buf)), st.Size()-n)], n)
		if k == 0 {
			return n, err
		}
		if _, err := f.Write(buf[:k]); err != nil {
			return n, err
		}
		n += int64(k)
	}
	return n, nil
}

// Stored gives the bytes of the parent's files of pages.
func (p *Parent) Stored() (n int64) {
	for _, f := range p.Manifest.GetStores() {
		n += pagestore.Stored(f)
	}
	return n
}

// Links tells how many checkpoints are below one that builds upon p.
func (p *Parent) Links() uint32 {
	if p == nil {
		return 0
	}
	return p.Manifest.GetLinks() + 1
}
