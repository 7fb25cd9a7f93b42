package chain

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/sys"
)

// extent is a part of the store that is in use, and where it will be.
type extent struct{ off, len, to uint64 }

// extents gives the parts of the store that lists of pages use, in order, each
// once, and how many bytes that is.
func extents(runs []*fm.PageRuns) (out []extent, total uint64) {
	for _, r := range runs {
		for i, off := range r.GetOff() {
			if off < pagestore.Zero {
				out = append(out, extent{off: off, len: r.GetPages()[i] * sys.PageSize})
			}
		}
	}
	slices.SortFunc(out, func(a, b extent) int { return cmp.Compare(a.off, b.off) })
	kept := out[:0]
	for _, e := range out {
		if l := len(kept) - 1; l >= 0 && e.off <= kept[l].off+kept[l].len {
			kept[l].len = max(kept[l].len, e.off+e.len-kept[l].off)
			continue
		}
		kept = append(kept, e)
	}
	for i := range kept {
		kept[i].to, total = total, total+kept[i].len
	}
	return kept, total
}

// Squash writes into the empty directory dir a full checkpoint of what p holds:
// the pages that it needs, in files of their own, and all else. It gives the
// bytes of pages written.
func (p *Parent) Squash(dir string, o pagestore.Options) (n int64, err error) {
	runs, err := Runs(p.Image)
	if err != nil {
		return 0, err
	}
	parts, total := extents(runs)
	for _, r := range runs {
		for i, off := range r.GetOff() {
			if off < pagestore.Zero {
				k := sort.Search(len(parts), func(k int) bool { return parts[k].off+parts[k].len > off })
				r.Off[i] = parts[k].to + off - parts[k].off
			}
		}
	}
	idle := make(chan *pagestore.Reader, 8) // one for each goroutine that reads
	defer func() {
		for len(idle) > 0 {
			(<-idle).Close()
		}
	}()
	w, err := pagestore.Write(dir, total, func(at uint64, b []byte) error {
		var r *pagestore.Reader
		select {
		case r = <-idle:
		default:
			r = p.Store.NewReader()
		}
		defer func() {
			select {
			case idle <- r:
			default:
				r.Close()
			}
		}()
		k := sort.Search(len(parts), func(k int) bool { return parts[k].to+parts[k].len > at })
		for len(b) > 0 {
			skip := at - parts[k].to
			d, err := r.At(parts[k].off+skip, min(parts[k].len-skip, uint64(len(b))))
			if err != nil {
				return err
			}
			copy(b, d)
			b, at = b[len(d):], at+uint64(len(d))
			if at == parts[k].to+parts[k].len {
				k++
			}
		}
		return nil
	}, o)
	if err != nil {
		return 0, err
	}
	p.Manifest.Stores, _ = w.Settle(nil, runs)
	p.Manifest.Parent, p.Manifest.ParentId, p.Manifest.Links = nil, nil, nil
	for _, f := range p.Manifest.Stores {
		n += pagestore.Stored(f)
	}
	if err := p.takeFiles(dir); err != nil {
		return 0, err
	}
	p.Image.Replace("manifest", p.Manifest)
	b, err := p.Image.Encode()
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(dir, image.MetaName), b, 0o600); err != nil {
		return 0, err
	}
	return n, check(dir)
}

// takeFiles gives the saved contents of files a name in dir, or copies them.
func (p *Parent) takeFiles(dir string) error {
	for _, s := range p.Manifest.GetSaved() {
		if !filepath.IsLocal(s.GetName()) {
			return fmt.Errorf("saved file %q: its name leads out of the checkpoint", s.GetName())
		}
		from, to := filepath.Join(p.Dir, s.GetName()), filepath.Join(dir, s.GetName())
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		f, err := image.Open(from)
		if err != nil {
			return err
		}
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
		if err != nil {
			_, err = Copy(to, f)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// check reads a checkpoint back: what it replaces may be removed.
func check(dir string) error {
	p, err := Open(dir)
	if err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	defer p.Close()
	if err := p.Store.Verify(nil); err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	return nil
}
