package imgdir

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/mm"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/vma"

	"github.com/fermata-cr/fermata/internal/collect"
	"github.com/fermata-cr/fermata/internal/image"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/sys"
)

// servedImage is the memory of a process and of a shared object.
func servedImage() (*image.Image, func(uint64, []byte) error) {
	im := image.New()
	const at = 0x7f0000000000
	im.Add(image.Of("mm", 12), &mm.MmEntry{Vmas: []*vma.VmaEntry{{
		Start: proto.Uint64(at), End: proto.Uint64(at + 1<<30), Flags: proto.Uint32(0x22), Status: proto.Uint32(collect.VMAAnonPrivate),
	}}})
	runs := &fm.PageRuns{Vaddr: []uint64{at, at + 1<<20, at + 1<<29}, Pages: []uint64{3, 700, 1}, Off: []uint64{0, 3 * sys.PageSize, 703 * sys.PageSize}}
	im.Add(image.Of("pages", 12), runs)
	im.Add("shm", &fm.ShmObject{
		Id: proto.Uint64(5), Size: proto.Uint64(1 << 20), Dev: proto.Uint64(1), Ino: proto.Uint64(2), Kind: proto.Uint32(collect.ShmAnon),
		Pages: &fm.PageRuns{Vaddr: []uint64{0x4000}, Pages: []uint64{2}, Off: []uint64{704 * sys.PageSize}},
	})
	return im, func(off uint64, b []byte) error {
		for i := range b {
			n := off + uint64(i)
			b[i] = byte(n>>12)*31 + byte(n)
		}
		return nil
	}
}

// content gives what a directory's pagemaps lead to.
func content(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	names, _ := filepath.Glob(filepath.Join(dir, "pagemap-*.img"))
	for _, n := range names {
		s := &Source{dir: dir, bases: map[string]uint64{}}
		r, err := s.pagemap(dir, filepath.Base(n), 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.openStore(); err != nil {
			t.Fatal(err)
		}
		rd := s.Store.NewReader()
		for i := range r.Vaddr {
			for k := range r.Pages[i] {
				b, err := rd.At(r.Off[i]+k*sys.PageSize, sys.PageSize)
				if err != nil {
					t.Fatal(err)
				}
				out[filepath.Base(n)] = append(out[filepath.Base(n)], b...)
			}
			out[filepath.Base(n)+" at"] = append(out[filepath.Base(n)+" at"], byte(r.Vaddr[i]>>40), byte(r.Vaddr[i]>>29), byte(r.Vaddr[i]>>20), byte(r.Vaddr[i]>>12))
		}
		rd.Close()
		s.Store.Close()
	}
	return out
}

// TestServe: what comes by a page server is what a dump into files would be.
func TestServe(t *testing.T) {
	im, fill := servedImage()
	here, there := t.TempDir(), t.TempDir()
	want, err := WritePages(im, here, "", nil, fill, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	served := make(chan error)
	var n uint64
	go func() {
		var err error
		n, err = Serve(b, there, "")
		served <- err
	}()
	got, err := WritePages(im, here+"/none", "", ToServer(a), fill, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if *got != *want || n != want.Written+want.Shared {
		t.Errorf("%+v, %d pages received; into files %+v", got, n, want)
	}
	w, g := content(t, here), content(t, there)
	if len(w) != 4 || len(w) != len(g) {
		t.Fatalf("%d and %d pagemaps", len(g), len(w))
	}
	for name := range w {
		if !bytes.Equal(w[name], g[name]) {
			t.Errorf("%s: %d bytes that differ from %d", name, len(g[name]), len(w[name]))
		}
	}
}

// TestServeBroken: a dump that ends early, or talks nonsense, leaves nothing.
func TestServeBroken(t *testing.T) {
	page := make([]byte, sys.PageSize)
	open := (&message{cmd: msgOpen, dst: 7<<8 | ofProcess}).encode()
	add := (&message{cmd: pagePresent<<16 | msgAddFlags, pages: 1, at: 0x1000, dst: 7<<8 | ofProcess}).encode()
	for _, x := range []struct {
		what, why string
		said      []byte
	}{
		{"nothing", "without saying", nil},
		{"half a message", "without saying", open[:9]},
		{"no end", "without saying", bytes.Join([][]byte{open, add, page}, nil)},
		{"half a page", "pages at 0x1000", bytes.Join([][]byte{open, add, page[:100]}, nil)},
		{"an unknown message", "unknown message", (&message{cmd: 0x77}).encode()},
		{"an unknown object", "unknown kind", (&message{cmd: msgOpen, dst: 99}).encode()},
		{"an unaligned page", "not to be believed", (&message{cmd: msgAdd, pages: 1, at: 3, dst: 7<<8 | ofProcess}).encode()},
		{"too many pages", "not to be believed", (&message{cmd: msgAdd, pages: 1 << 60, at: 0, dst: 7<<8 | ofProcess}).encode()},
	} {
		dir := t.TempDir()
		_, err := Serve(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(x.said), io.Discard}, dir, "")
		if err == nil || !strings.Contains(err.Error(), x.why) {
			t.Errorf("%s: %v", x.what, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: left %v", x.what, left)
		}
	}
}
