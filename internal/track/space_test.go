package track_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/memory"
	"github.com/fermata-cr/fermata/internal/sys"
	"github.com/fermata-cr/fermata/internal/track"
)

const page = sys.PageSize

// space gives a tracked space of this very process, and its page map.
func space(t *testing.T) (*track.Space, *memory.Pagemap) {
	t.Helper()
	if err := track.Available(); err != nil {
		t.Skip(err)
	}
	fd, err := sys.Userfaultfd(unix.O_CLOEXEC | sys.UffdUserModeOnly)
	if err != nil {
		t.Fatal(err)
	}
	s, err := track.NewSpace(os.Getpid(), 0, fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	pm, err := memory.OpenPagemap(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pm.Close)
	return s, pm
}

// area maps n pages, all of them written, none huge.
func area(t *testing.T, n int) ([]byte, memory.Range) {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		b[i*page] = 1
	}
	at := uint64(sys.Address(b))
	return b, memory.Range{Start: at, End: at + uint64(n)*page}
}

func arm(t *testing.T, s *track.Space, pm *memory.Pagemap, r memory.Range) {
	t.Helper()
	ours, err := s.Arm([]track.Range{track.Range(r)})
	if err != nil || !ours[0] {
		t.Fatalf("arm: %v %v", ours, err)
	}
	if ok, err := pm.Registered([]memory.Range{r}); err != nil || !ok {
		t.Fatalf("registered: %v %v", ok, err)
	}
	if err := pm.Tracked([]memory.Range{r}, true, func(memory.Run) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// unwritten and written give the numbers of an area's pages that are so.
func unwritten(t *testing.T, pm *memory.Pagemap, r memory.Range) []int { return pages(t, pm, r, false) }
func written(t *testing.T, pm *memory.Pagemap, r memory.Range) []int   { return pages(t, pm, r, true) }

func pages(t *testing.T, pm *memory.Pagemap, r memory.Range, written bool) (out []int) {
	t.Helper()
	err := pm.Tracked([]memory.Range{r}, false, func(x memory.Run) error {
		for at := x.Start; at < x.End && x.Written == written; at += page {
			out = append(out, int((at-r.Start)/page))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func want(t *testing.T, what string, got []int, want ...int) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: pages %v, want %v", what, got, want)
	}
}

// TestWrites: what is written, thrown away, mapped anew or moved does not count as
// unwritten; what is read does.
func TestWrites(t *testing.T) {
	s, pm := space(t)
	b, r := area(t, 8)
	defer unix.Munmap(b)
	want(t, "before", unwritten(t, pm, r))
	arm(t, s, pm, r)
	want(t, "armed", unwritten(t, pm, r), 0, 1, 2, 3, 4, 5, 6, 7)
	b[2*page]++
	if b[3*page] != 1 {
		t.Error("the content is another")
	}
	want(t, "written", written(t, pm, r), 2)
	if err := unix.Madvise(b[4*page:5*page], unix.MADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	want(t, "thrown away", unwritten(t, pm, r), 0, 1, 3, 5, 6, 7)
	b[4*page] = 1
	want(t, "and touched", written(t, pm, r), 2, 4)
	// The kernel's own writes count, too.
	f, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Read(b[5*page : 5*page+1]); err != nil {
		t.Fatal(err)
	}
	want(t, "read into", written(t, pm, r), 2, 4, 5)
	arm(t, s, pm, r)
	want(t, "again", written(t, pm, r))
	if _, _, e := unix.Syscall6(unix.SYS_MMAP, uintptr(r.Start+6*page), page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, ^uintptr(0), 0); e != 0 {
		t.Fatal(e)
	}
	b[6*page] = 1
	want(t, "mapped anew", unwritten(t, pm, r), 0, 1, 2, 3, 4, 5, 7)
}

// TestMoved: what mremap has moved is not registered, wherever it comes to lie.
func TestMoved(t *testing.T) {
	s, pm := space(t)
	_, r := area(t, 4)
	b2, r2 := area(t, 4)
	defer unix.Munmap(b2)
	arm(t, s, pm, r)
	arm(t, s, pm, r2)
	if _, _, e := unix.Syscall6(unix.SYS_MREMAP, uintptr(r.Start), 4*page, 4*page, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, uintptr(r2.Start), 0); e != 0 {
		t.Fatal(e)
	}
	want(t, "moved onto another", unwritten(t, pm, r2))
	if ok, err := pm.Registered([]memory.Range{r2}); err != nil || ok {
		t.Errorf("registered: %v %v", ok, err)
	}
	want(t, "moved away", unwritten(t, pm, r))
}

// TestGone: when the last descriptor goes, the area is as if nothing had been.
func TestGone(t *testing.T) {
	s, pm := space(t)
	b, r := area(t, 4)
	defer unix.Munmap(b)
	arm(t, s, pm, r)
	s.Close()
	want(t, "no longer tracked", unwritten(t, pm, r))
	b[0]++
	other, _ := space(t)
	if ours, err := other.Arm([]track.Range{track.Range(r)}); err != nil || !ours[0] {
		t.Errorf("registered anew: %v %v", ours, err)
	}
}

// TestOthers: an area of another userfaultfd is not taken for ours, nor does it
// keep its neighbours from being ours.
func TestOthers(t *testing.T) {
	s, pm := space(t)
	b, r := area(t, 6)
	defer unix.Munmap(b)
	fd, err := sys.Userfaultfd(unix.O_CLOEXEC | sys.UffdUserModeOnly)
	if err != nil {
		t.Fatal(err)
	}
	other, err := track.NewSpace(os.Getpid(), 0, fd)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	third := func(i uint64) track.Range {
		return track.Range{Start: r.Start + 2*i*page, End: r.Start + 2*(i+1)*page}
	}
	if ours, err := other.Arm([]track.Range{third(1)}); err != nil || !ours[0] {
		t.Fatalf("the other: %v %v", ours, err)
	}
	ours, err := s.Arm([]track.Range{third(0), third(1), third(2)})
	if err != nil || !slices.Equal(ours, []bool{true, false, true}) {
		t.Errorf("ours: %v %v, want all but the other's", ours, err)
	}
	if ok, err := s.Acts(pm.File(), third(0).Start); !ok || err != nil {
		t.Errorf("acts here: %v %v", ok, err)
	}
	want(t, "as before", written(t, pm, r), 0, 1, 2, 3, 4, 5)
}

// TestActs: a userfaultfd does not act on another process's memory.
func TestActs(t *testing.T) {
	s, pm := space(t)
	b, r := area(t, 2)
	defer unix.Munmap(b)
	arm(t, s, pm, r)
	at, ok, err := pm.Small([]memory.Range{r})
	if err != nil || !ok || at != r.Start {
		t.Fatalf("a small page: %#x %v %v", at, ok, err)
	}
	if ok, err := s.Acts(pm.File(), at); !ok || err != nil {
		t.Errorf("acts here: %v %v", ok, err)
	}
	want(t, "as before", unwritten(t, pm, r), 0, 1)
	err = sys.Ended(0, func(pid int) error { // a copy of this process, with the same areas
		theirs, err := memory.OpenPagemap(pid)
		if err != nil {
			return err
		}
		defer theirs.Close()
		if ok, err := s.Acts(theirs.File(), r.Start); ok || err != nil {
			return fmt.Errorf("acts there: %v %w", ok, err)
		}
		if n := unwritten(t, theirs, r); len(n) > 0 {
			return fmt.Errorf("the copy counts as unwritten: %v", n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	want(t, "on the safe side", unwritten(t, pm, r), 1)
}
