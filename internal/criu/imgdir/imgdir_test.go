package imgdir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pagemap"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/pstree"

	"github.com/fermata-cr/fermata/internal/fault"
	"github.com/fermata-cr/fermata/internal/image/fm"
	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/sys"
)

func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	e := &pstree.PstreeEntry{Pid: proto.Uint32(1), Ppid: proto.Uint32(0), Pgid: proto.Uint32(1), Sid: proto.Uint32(1), Threads: []uint32{1}}
	if err := writeOne(dir, "pstree.img", "PSTREE", e); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "pstree.img"))
	if err != nil {
		t.Fatal(err)
	}
	got := &pstree.PstreeEntry{}
	if ok, err := readOne(dir, "pstree.img", "PSTREE", got); !ok || err != nil || !proto.Equal(got, e) {
		t.Fatalf("%v %v %v", ok, err, got)
	}
	if _, err := readOne(dir, "pstree.img", "FILES", got); !errors.Is(err, fault.ErrDamaged) {
		t.Errorf("a file of another kind: %v", err)
	}
	for n := range len(whole) {
		if err := os.WriteFile(filepath.Join(dir, "pstree.img"), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readOne(dir, "pstree.img", "PSTREE", &pstree.PstreeEntry{}); !errors.Is(err, fault.ErrDamaged) {
			t.Errorf("cut at %d of %d: %v", n, len(whole), err)
		}
	}
	if ok, err := readOne(dir, "none.img", "PSTREE", got); ok || err != nil {
		t.Errorf("a file that is not there: %v %v", ok, err)
	}
}

// The inventory has one magic number, all others two.
func TestMagic(t *testing.T) {
	dir := t.TempDir()
	if err := writeOne(dir, InventoryName, "INVENTORY", &inventory.InventoryEntry{ImgVersion: proto.Uint32(2)}); err != nil {
		t.Fatal(err)
	}
	if err := writeOne(dir, "stats-dump", "STATS"); err != nil {
		t.Fatal(err)
	}
	first := func(name string) uint32 {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return le.Uint32(b)
	}
	// The numbers of CRIU's image format (criu.org/Images).
	if n := first(InventoryName); n != 0x58313116 {
		t.Errorf("inventory: %#x", n)
	}
	if n := first("stats-dump"); n != 0x55105940 {
		t.Errorf("statistics: %#x", n)
	}
	if !Is(dir) || Is(t.TempDir()) {
		t.Error("Is")
	}
}

func TestParentPages(t *testing.T) {
	top := t.TempDir()
	dump := func(name string, id uint32, content string, entries ...*pagemap.PagemapEntry) string {
		dir := filepath.Join(top, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		all := []proto.Message{&pagemap.PagemapHead{PagesId: proto.Uint32(id)}}
		for _, e := range entries {
			all = append(all, e)
		}
		if err := writeOne(dir, "pagemap-5.img", "PAGEMAP", all...); err != nil {
			t.Fatal(err)
		}
		var b []byte
		for _, c := range content {
			b = append(b, slices.Repeat([]byte{byte(c)}, sys.PageSize)...)
		}
		if err := os.WriteFile(filepath.Join(dir, "pages-"+string(rune('0'+id))+".img"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	entry := func(at, n uint64, flags uint32) *pagemap.PagemapEntry {
		return &pagemap.PagemapEntry{Vaddr: proto.Uint64(at), CompatNrPages: proto.Uint32(0), NrPages: proto.Uint64(n), Flags: proto.Uint32(flags)}
	}
	// The older way to write the same.
	old := &pagemap.PagemapEntry{Vaddr: proto.Uint64(0x1000), CompatNrPages: proto.Uint32(4)}
	dump("a", 1, "abcd", old)
	dir := dump("b", 2, "xy", entry(0x1000, 1, pageParent), entry(0x2000, 1, pagePresent), entry(0x3000, 2, pageParent), entry(0x9000, 1, pagePresent|pageLazy))
	if err := os.Symlink("../a", filepath.Join(dir, ParentName)); err != nil {
		t.Fatal(err)
	}
	s := &Source{dir: dir, bases: map[string]uint64{}}
	r, err := s.pagemap(dir, "pagemap-5.img", 0)
	if err != nil {
		t.Fatal(err)
	}
	if s.Store, err = pagestore.OpenPlain(s.stores); err != nil {
		t.Fatal(err)
	}
	defer s.Store.Close()
	if got := contents(t, s, r); got != "1000a 2000x 3000c 4000d 9000y " {
		t.Errorf("pages %q", got)
	}
	// A page that the parent does not have.
	bad := dump("c", 3, "", entry(0x7000, 1, pageParent))
	if err := os.Symlink("../a", filepath.Join(bad, ParentName)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.pagemap(bad, "pagemap-5.img", 0); !errors.Is(err, fault.ErrDamaged) {
		t.Errorf("a page that is nowhere: %v", err)
	}
	// A ring of parents.
	ring := dump("d", 4, "", entry(0x7000, 1, pageParent))
	if err := os.Symlink(".", filepath.Join(ring, ParentName)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.pagemap(ring, "pagemap-5.img", 0); !errors.Is(err, fault.ErrDamaged) {
		t.Errorf("a ring: %v", err)
	}
}

func contents(t *testing.T, s *Source, r *fm.PageRuns) (out string) {
	t.Helper()
	rd := s.Store.NewReader()
	defer rd.Close()
	for i, at := range r.Vaddr {
		for k := uint64(0); k < r.Pages[i]; k++ {
			b, err := rd.At(r.Off[i]+k*sys.PageSize, 1)
			if err != nil {
				t.Fatal(err)
			}
			out += hex(at+k*sys.PageSize) + string(b) + " "
		}
	}
	return out
}

func hex(v uint64) string {
	s := ""
	for ; v > 0; v /= 16 {
		s = string("0123456789abcdef"[v%16]) + s
	}
	return s
}

// Pages that parent and child have in common get one place.
func TestSharedPages(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pages-1.img")
	var b []byte
	for _, c := range "abcdaXcY" {
		b = append(b, slices.Repeat([]byte{byte(c)}, sys.PageSize)...)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := pagestore.OpenPlain([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	s := &Source{Store: store}
	parent := &fm.PageRuns{Vaddr: []uint64{0x1000, 0x8000}, Pages: []uint64{3, 1}, Off: []uint64{0, 3 * sys.PageSize}}
	child := &fm.PageRuns{Vaddr: []uint64{0x1000}, Pages: []uint64{4}, Off: []uint64{4 * sys.PageSize}}
	r, err := s.common(child, parent)
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, s, r); got != "1000a 2000X 3000c 4000Y " {
		t.Errorf("content %q", got)
	}
	if !slices.Equal(r.Off, []uint64{0, 5 * sys.PageSize, 2 * sys.PageSize, 7 * sys.PageSize}) {
		t.Errorf("places %v", r.Off)
	}
}
