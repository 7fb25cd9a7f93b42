package chain

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/sys"
)

const page = sys.PageSize

// runs makes a list from triples of address, pages and offset, in pages.
func runs(x ...uint64) *fm.PageRuns {
	r := &fm.PageRuns{}
	for i := 0; i < len(x); i += 3 {
		off := x[i+2]
		if off < pagestore.Below {
			off *= page
		}
		pagestore.AppendRun(r, x[i]*page, off, x[i+1])
	}
	return r
}

// checkpoint makes a directory with a store of n pages and the given metadata.
func checkpoint(t *testing.T, n int, fill func(*image.Image)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "c")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n*page)
	for i := range n {
		b[i*page] = byte(i + 1)
	}
	w, err := pagestore.WriteMemory(dir, b, pagestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	im := image.New()
	im.Add("manifest", &fm.Manifest{Stores: w.Files, PageBytes: proto.Uint64(uint64(len(b)))})
	fill(im)
	m, err := im.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, image.MetaName), m, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestKeep: what the parent has is noted as the parent's, what it lacks is told.
func TestKeep(t *testing.T) {
	parent := runs(10, 5, 0, 20, 5, 100, 30, 2, pagestore.Zero+30*page)
	got, rest := runs(), runs()
	err := Keep(got, parent, 8*page, 40*page, func(from, to uint64) error {
		pagestore.AppendRun(rest, from, 0, (to-from)/page)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := runs(10, 5, pagestore.Below, 20, 5, pagestore.Below+100*page, 30, 2, pagestore.Zero+30*page)
	if !proto.Equal(got, want) {
		t.Errorf("kept %v\nwant %v", got, want)
	}
	if w := runs(8, 2, 0, 15, 5, 0, 25, 5, 0, 32, 8, 0); !proto.Equal(rest, w) {
		t.Errorf("rest %v\nwant %v", rest, w)
	}
	// A part of a run, and an error of the caller.
	got = runs()
	if err := Keep(got, parent, 12*page, 14*page, nil); err != nil || !proto.Equal(got, runs(12, 2, pagestore.Below+2*page)) {
		t.Errorf("%v, %v", got, err)
	}
	stop := errors.New("stop")
	if err := Keep(runs(), parent, 0, page, func(uint64, uint64) error { return stop }); err != stop {
		t.Error(err)
	}
}

// TestTwins pairs by process and address, and each page to be written once.
func TestTwins(t *testing.T) {
	object := func(id uint64, r *fm.PageRuns) *fm.ShmObject {
		return &fm.ShmObject{Id: proto.Uint64(id), Size: proto.Uint64(0), Dev: proto.Uint64(0), Ino: proto.Uint64(0), Pages: r}
	}
	dir := checkpoint(t, 50, func(im *image.Image) {
		im.Add("pages/7", runs(100, 10, 0, 120, 10, 10))
		im.Add("pages/8", runs(100, 10, 20))
		im.Add("shm", object(1, runs(0, 4, 40)))
	})
	p, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	im := image.New()
	im.Add("pages/7", runs(95, 20, 0, 125, 1, pagestore.Below+5*page, 126, 4, 20))
	im.Add("pages/8", runs(100, 10, 5)) // shared with 7: at 5 of the new store
	im.Add("pages/9", runs(100, 10, 30))
	im.Add("shm", object(1, runs(2, 4, 50)))
	im.Add("shm", object(2, runs(2, 4, 60)))
	got, err := p.Twins(im, nil)
	want := []pagestore.Twin{{Off: 5 * page, Len: 10 * page, Parent: 0}, {Off: 20 * page, Len: 4 * page, Parent: 16 * page}, {Off: 50 * page, Len: 2 * page, Parent: 42 * page}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v (%v)\nwant %v", got, err, want)
	}
}

// TestOpenRefuses: a parent that is not whole is named as the parent.
func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		runs *fm.PageRuns
		do   func(dir string)
		want error
	}{
		"removed":       {nil, func(dir string) { os.RemoveAll(dir) }, fault.ErrNotFound},
		"no metadata":   {nil, func(dir string) { os.Remove(filepath.Join(dir, image.MetaName)) }, fault.ErrDamaged},
		"no pages":      {nil, func(dir string) { os.Remove(filepath.Join(dir, "pages-0")) }, fault.ErrDamaged},
		"cut off":       {nil, func(dir string) { os.Truncate(filepath.Join(dir, "pages-0"), 100) }, fault.ErrDamaged},
		"beyond":        {runs(1, 5, 6), nil, fault.ErrDamaged},
		"not in order":  {runs(9, 1, 0, 3, 1, 2), nil, fault.ErrDamaged},
		"twice":         {runs(3, 2, 0, 4, 1, 3), nil, fault.ErrDamaged},
		"unfinished":    {runs(3, 2, pagestore.Below), nil, fault.ErrDamaged},
		"zeros of else": {runs(3, 2, pagestore.Zero+4*page), nil, fault.ErrDamaged},
		"not a whole":   {&fm.PageRuns{Vaddr: []uint64{4097}, Pages: []uint64{1}, Off: []uint64{0}}, nil, fault.ErrDamaged},
		"lists differ":  {&fm.PageRuns{Vaddr: []uint64{4096}, Pages: []uint64{1}}, nil, fault.ErrDamaged},
		"endless pages": {&fm.PageRuns{Vaddr: []uint64{4096}, Pages: []uint64{1 << 60}, Off: []uint64{0}}, nil, fault.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			dir := checkpoint(t, 10, func(im *image.Image) {
				if c.runs != nil {
					im.Add("pages/7", c.runs)
				}
			})
			if c.do != nil {
				c.do(dir)
			}
			p, err := Open(dir)
			p.Close()
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), "the parent checkpoint") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestAdopt: files of the parent stay when it goes; where they cannot be linked
// they are copied, and that is said.
func TestAdopt(t *testing.T) {
	dir := checkpoint(t, 3000, func(*image.Image) {})
	p, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if n := p.FirstFree(); n != 2 {
		t.Errorf("first free number %d", n)
	}
	linked := t.TempDir()
	if note, err := p.Adopt(linked, []int{1}); err != nil || note != "" {
		t.Errorf("%q, %v", note, err)
	}
	if _, err := p.Adopt(linked, []int{1}); !errors.Is(err, os.ErrExist) {
		t.Errorf("twice: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	// File 0 has lost its last name, file 1 has one.
	copied := t.TempDir()
	note, err := p.Adopt(copied, []int{0, 1})
	if err != nil || !strings.Contains(note, "copied") {
		t.Errorf("%q, %v", note, err)
	}
	for _, d := range []string{linked, copied} {
		st, err := os.Stat(filepath.Join(d, "pages-1"))
		if err != nil || st.Size() == 0 {
			t.Errorf("%v, %v", st, err)
		}
	}
	s, err := pagestore.Open(copied, p.Manifest.GetStores())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Verify(nil); err != nil {
		t.Error(err)
	}
}
