package pagestore

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fermata-cr/fermata/internal/fault"
)

// written makes a store of n random bytes.
func written(t *testing.T, n int) (dir string, content []byte, s *Store) {
	t.Helper()
	dir = t.TempDir()
	content = make([]byte, n)
	c := rand.NewChaCha8([32]byte{1})
	c.Read(content)
	w, err := WriteMemory(dir, content, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, w.Files); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return dir, content, s
}

// TestReadersAtRandom reads from several goroutines what was written.
func TestReadersAtRandom(t *testing.T) {
	_, content, s := written(t, 10<<20+4096)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := s.NewReader()
			defer r.Close()
			rnd := rand.New(rand.NewPCG(uint64(g), 2))
			for range 300 {
				off := rnd.Uint64N(s.Size())
				n := rnd.Uint64N(min(s.Size()-off, 2<<20)) + 1
				b, err := r.At(off, n)
				if err != nil || len(b) == 0 || uint64(len(b)) > n || !bytes.Equal(b, content[off:off+uint64(len(b))]) {
					t.Errorf("%d bytes at %#x: %d bytes, %v", n, off, len(b), err)
					return
				}
			}
		})
	}
	wg.Wait()
	r := s.NewReader()
	if _, err := r.At(s.Size(), 1); !errors.Is(err, fault.ErrDamaged) {
		t.Errorf("beyond the end: %v", err)
	}
}

// TestReadDamaged finds a changed byte when its chunk is read, not others, and
// a file that has become shorter since it was opened.
func TestReadDamaged(t *testing.T) {
	dir, content, s := written(t, 4<<20)
	f, err := os.OpenFile(filepath.Join(dir, "pages-0"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const at = Chunk + 77
	if _, err := f.WriteAt([]byte{content[at] ^ 1}, at); err != nil {
		t.Fatal(err)
	}
	r := s.NewReader()
	defer r.Close()
	if _, err := r.At(0, Chunk); err != nil {
		t.Error(err)
	}
	for range 2 { // not forgotten
		if _, err := r.At(Chunk+4096, 10); !errors.Is(err, fault.ErrDamaged) {
			t.Errorf("damaged chunk: %v", err)
		}
	}
	if err := s.Verify(nil); !errors.Is(err, fault.ErrDamaged) {
		t.Errorf("verify: %v", err)
	}
	if err := f.Truncate(3<<20 + 100); err != nil {
		t.Fatal(err)
	}
	if _, err := r.At(3<<20, 4096); !errors.Is(err, fault.ErrDamaged) {
		t.Errorf("cut off: %v", err)
	}
}
