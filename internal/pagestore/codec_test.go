package pagestore

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
)

// halfRandom is content of which some chunks can be packed and some cannot.
func halfRandom(n int) []byte {
	b := make([]byte, n)
	c := rand.NewChaCha8([32]byte{7})
	for i := 0; i < n; i += page {
		if i/packedChunk%2 == 0 {
			c.Read(b[i : i+page])
		} else {
			copy(b[i:], bytes.Repeat([]byte{byte(i >> 12), 'x', 'y', 'z'}, page/4))
		}
	}
	return b
}

// TestCodecs reads packed files at random, from several goroutines, and finds
// every altered byte of them.
func TestCodecs(t *testing.T) {
	for _, c := range []Compression{{Codec: S2}, {Zstd, 1}, {Zstd, 3}, {Zstd, 22}} {
		dir, content := t.TempDir(), halfRandom(3<<20+5*page)
		w, err := WriteMemory(dir, content, Options{Compression: c})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, w.Files)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				r := s.NewReader()
				defer r.Close()
				rnd := rand.New(rand.NewPCG(uint64(g), 2))
				for range 100 {
					off := rnd.Uint64N(s.Size())
					n := rnd.Uint64N(min(s.Size()-off, 2<<20)) + 1
					b, err := r.At(off, n)
					if err != nil || len(b) == 0 || uint64(len(b)) > n || !bytes.Equal(b, content[off:off+uint64(len(b))]) {
						t.Errorf("%v: %d bytes at %#x: %d bytes, %v", c, n, off, len(b), err)
						return
					}
				}
			})
		}
		wg.Wait()
		s.Close()
		path := filepath.Join(dir, "pages-0")
		stored, err := os.ReadFile(path)
		if err != nil || len(stored) > len(content)*3/4 {
			t.Fatalf("%v: %d bytes for %d, %v", c, len(stored), len(content), err)
		}
		rnd := rand.New(rand.NewPCG(5, 6))
		for range 60 {
			bad := bytes.Clone(stored)
			bad[rnd.IntN(len(bad))] ^= 1 << rnd.IntN(8)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir, w.Files)
			if err == nil {
				err = s.Verify(nil)
				s.Close()
			}
			if !errors.Is(err, fault.ErrDamaged) {
				t.Fatalf("%v: a byte is another: %v", c, err)
			}
		}
		// A description that is not this file's, with sums that are right.
		for name, change := range map[string]func(*fm.StoreFile){
			"another codec":     func(f *fm.StoreFile) { f.Codec = proto.Uint32(3 - f.GetCodec()) },
			"an unknown codec":  func(f *fm.StoreFile) { f.Codec = proto.Uint32(9) },
			"no codec":          func(f *fm.StoreFile) { f.Codec = nil },
			"another size":      func(f *fm.StoreFile) { f.Size = proto.Uint64(f.GetSize() - page) },
			"chunks in another": func(f *fm.StoreFile) { f.Stored[0], f.Stored[1] = f.Stored[1], f.Stored[0] },
			"an empty chunk":    func(f *fm.StoreFile) { f.Stored[0] = 0 },
			"a chunk less":      func(f *fm.StoreFile) { f.Stored = f.Stored[1:] },
			"a large chunk":     func(f *fm.StoreFile) { f.Chunk = proto.Uint32(1 << 30) },
			"a path":            func(f *fm.StoreFile) { f.Name = proto.String("../pages-0") },
		} {
			if err := os.WriteFile(path, stored, 0o600); err != nil {
				t.Fatal(err)
			}
			d := proto.CloneOf(w.Files[0])
			change(d)
			s, err := Open(dir, []*fm.StoreFile{d})
			if err == nil {
				err = s.Verify(nil)
				s.Close()
			}
			if !errors.Is(err, fault.ErrDamaged) {
				t.Errorf("%v, %s: %v", c, name, err)
			}
		}
	}
}

// TestParseCompression: what people write.
func TestParseCompression(t *testing.T) {
	for s, want := range map[string]Compression{"none": {}, "fast": {Codec: S2}, "zstd": {Zstd, 3}, "zstd:1": {Zstd, 1}, "zstd:22": {Zstd, 22}} {
		if c, err := ParseCompression(s); err != nil || c != want {
			t.Errorf("%s: %v, %v", s, c, err)
		}
	}
	for _, s := range []string{"", "lz4", "fast:1", "none:", "zstd:", "zstd:0", "zstd:23", "zstd:x", "zstd:1:2", "ZSTD"} {
		if _, err := ParseCompression(s); !errors.Is(err, fault.ErrUsage) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzOpen: whatever a description says, opening and reading end with bytes or
// with an error that says that it is damaged, and take no more memory than a
// chunk may.
func FuzzOpen(f *testing.F) {
	for _, c := range []Compression{{}, {Codec: S2}, {Zstd, 3}} {
		dir := f.TempDir()
		w, err := WriteMemory(dir, halfRandom(packedChunk + 3*page)[packedChunk-2*page:], Options{Compression: c})
		if err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "pages-0"))
		if err != nil {
			f.Fatal(err)
		}
		m, err := proto.Marshal(&fm.Manifest{Stores: w.Files})
		if err == nil {
			f.Error("a manifest without what it must have")
		}
		m, _ = proto.MarshalOptions{AllowPartial: true}.Marshal(&fm.Manifest{Stores: w.Files})
		f.Add(m, b, uint64(100), uint64(5000))
	}
	f.Fuzz(func(t *testing.T, desc, content []byte, off, n uint64) {
		var m fm.Manifest
		if (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(desc, &m) != nil || len(m.GetStores()) > 100 {
			return
		}
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenWith(m.GetStores(), func(string) (*os.File, error) { return os.Open(path) })
		if err != nil {
			if !errors.Is(err, fault.ErrDamaged) {
				t.Errorf("open: %v", err)
			}
			return
		}
		defer s.Close()
		if err := s.Verify(nil); err != nil && !errors.Is(err, fault.ErrDamaged) {
			t.Errorf("verify: %v", err)
		}
		r := s.NewReader()
		defer r.Close()
		if b, err := r.At(off, n); err != nil && !errors.Is(err, fault.ErrDamaged) || uint64(len(b)) > n {
			t.Errorf("at %#x: %d bytes, %v", off, len(b), err)
		}
	})
}
