package pagestore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

const page = sys.PageSize

// pages makes content of which about a third is pages of zeros, in runs.
func pages(r *rand.Rand, n int) []byte {
	b := make([]byte, n*page)
	for i := 0; i < n; {
		k := min(1+r.IntN(40), n-i)
		if r.IntN(3) > 0 {
			for j := i * page; j < (i+k)*page; j += 8 {
				b[j+r.IntN(8)] = byte(1 + r.IntN(255))
			}
		}
		i += k
	}
	return b
}

// cut makes runs of all pages of a content, some address apart from each other,
// in several lists.
func cut(r *rand.Rand, n int) (all []*fm.PageRuns) {
	at := uint64(1 << 30)
	for i := 0; i < n; {
		if len(all) == 0 || r.IntN(20) == 0 {
			all = append(all, &fm.PageRuns{})
		}
		k := min(1+r.IntN(600), n-i)
		AppendRun(all[len(all)-1], at, uint64(i)*page, uint64(k))
		at += uint64(k+r.IntN(2)) * page
		i += k
	}
	return all
}

func clone(all []*fm.PageRuns) (out []*fm.PageRuns) {
	for _, r := range all {
		c := &fm.PageRuns{}
		for i := range r.Vaddr {
			AppendRun(c, r.Vaddr[i], r.Off[i], r.Pages[i])
		}
		out = append(out, c)
	}
	return out
}

// like compares what runs give with the content at the places that they had.
func like(t *testing.T, s *Store, now, meant []*fm.PageRuns, content []byte) {
	t.Helper()
	r := s.NewReader()
	defer r.Close()
	for i, m := range meant {
		got := map[uint64]uint64{}
		for k, at := range now[i].Vaddr {
			for j := range now[i].Pages[k] {
				got[at+j*page] = now[i].Off[k] + j*page
			}
		}
		for k, at := range m.Vaddr {
			for j := range m.Pages[k] {
				off, ok := got[at+j*page]
				delete(got, at+j*page)
				want := content[m.Off[k]+j*page:][:page]
				b, err := r.At(off, page)
				if !ok || err != nil || !bytes.Equal(b, want) {
					t.Fatalf("page at %#x: at %#x (%v), %v", at+j*page, off, ok, err)
				}
				if zero := bytes.Equal(want, zeros[:]); zero != (off >= Zero) || zero && off != Zero+at+j*page {
					t.Fatalf("page at %#x is at %#x, zeros: %v", at+j*page, off, zero)
				}
			}
		}
		if len(got) != 0 {
			t.Fatalf("%d pages that were not there", len(got))
		}
	}
}

// TestWriteAndSettle writes contents of several sizes, from memory and from a
// source, and finds every page by its run again; pages of zeros are in no file.
func TestWriteAndSettle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 255, 256, 257, 3000} {
		for _, how := range []string{"memory", "source", "fast", "zstd", "zstd:1", "zstd:19"} {
			t.Run(fmt.Sprint(how, n), func(t *testing.T) {
				dir, content, runs := t.TempDir(), pages(rnd, n), cut(rnd, n)
				meant := clone(runs)
				var seen int64
				o := Options{First: 3}
				if n < 1000 {
					o.Progress = func(k int64) { seen += k }
				}
				var w *Written
				var err error
				if how != "memory" && how != "source" {
					if o.Compression, err = ParseCompression(how); err != nil {
						t.Fatal(err)
					}
				}
				if how == "memory" {
					w, err = WriteMemory(dir, content, o)
				} else {
					w, err = Write(dir, uint64(len(content)), func(off uint64, b []byte) error { copy(b, content[off:]); return nil }, o)
				}
				if err != nil {
					t.Fatal(err)
				}
				files, keep := w.Settle(nil, runs)
				s, err := Open(dir, files)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				like(t, s, runs, meant, content)
				if len(keep) != 0 || s.Size()+w.Zeros != uint64(len(content)) || o.Progress != nil && seen != int64(len(content)) {
					t.Errorf("files of %d bytes and zeros of %d for %d; progress %d", s.Size(), w.Zeros, len(content), seen)
				}
				if err := s.Verify(nil); err != nil {
					t.Error(err)
				}
				var disk int64
				for _, f := range files {
					disk += Stored(f)
				}
				if packed := disk < int64(s.Size())/2; n > 200 && packed != (o.Compression.Codec != Plain) {
					t.Errorf("%d bytes for %d", disk, s.Size())
				}
			})
		}
	}
}

// TestTwins makes a chain of stores, each with some changes to the one before:
// what did not change is not written again, what did is right.
func TestTwins(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	const n = 2800
	content, meant := pages(rnd, n), cut(rnd, n)
	var parent *Store
	var before []*fm.PageRuns
	dir := t.TempDir() // files of the parent are where those of the child are
	for round := range 6 {
		// Files of all kinds, one upon the other.
		o := Options{First: 10 * round, Parent: parent, Compression: []Compression{{}, {Codec: S2}, {Zstd, 3}}[round%3]}
		if parent != nil {
			// Where the page of an offset was, by address.
			was := map[uint64]uint64{}
			for _, r := range before {
				for k, at := range r.Vaddr {
					for j := range r.Pages[k] {
						was[at+j*page] = r.Off[k] + j*page
					}
				}
			}
			for _, r := range meant {
				for k, at := range r.Vaddr {
					for j := range r.Pages[k] {
						if off := was[at+j*page]; off < Below && rnd.IntN(50) > 0 {
							o.Twins = append(o.Twins, Twin{r.Off[k] + j*page, page, off})
						}
					}
				}
			}
		}
		w, err := WriteMemory(dir, content, o)
		if err != nil {
			t.Fatal(err)
		}
		runs := clone(meant)
		files, keep := w.Settle(parent, runs)
		if round > 0 && (w.Same < uint64(len(content))/3 || len(keep) == 0) {
			t.Errorf("round %d: only %d bytes of %d are the parent's", round, w.Same, len(content))
		}
		var own uint64
		for _, f := range w.Files {
			own += f.GetSize()
		}
		if own+w.Same+w.Zeros != uint64(len(content)) {
			t.Errorf("round %d: %d written, %d the parent's, %d zeros, of %d", round, own, w.Same, w.Zeros, len(content))
		}
		s, err := Open(dir, files)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		like(t, s, runs, meant, content)
		parent, before = s, runs
		for range 300 {
			p := rnd.IntN(n)
			switch rnd.IntN(3) {
			case 0:
				clear(content[p*page : (p+1)*page])
			default:
				content[p*page+rnd.IntN(page)]++
			}
		}
	}
}

// TestTwinDamaged: what cannot be compared is an error, not a page that is taken
// for the same.
func TestTwinDamaged(t *testing.T) {
	dir, content, s := written(t, 3<<20)
	f, err := os.OpenFile(filepath.Join(dir, "pages-0"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{content[2*Chunk] ^ 1}, 2*Chunk); err != nil {
		t.Fatal(err)
	}
	_, err = WriteMemory(t.TempDir(), content, Options{Parent: s, Twins: []Twin{{0, uint64(len(content)), 0}}})
	if !errors.Is(err, fault.ErrDamaged) {
		t.Errorf("%v", err)
	}
}

// TestWriteFails: an error of the source or the file system comes back.
func TestWriteFails(t *testing.T) {
	boom := errors.New("boom")
	for _, total := range []uint64{4096, 20 << 20} {
		if _, err := Write(t.TempDir(), total, func(off uint64, b []byte) error {
			if off+uint64(len(b)) == total {
				return boom
			}
			b[0] = 1
			return nil
		}, Options{}); !errors.Is(err, boom) {
			t.Error(err)
		}
		if _, err := Write(filepath.Join(t.TempDir(), "none"), total, func(off uint64, b []byte) error { b[0] = 1; return nil }, Options{}); !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}
