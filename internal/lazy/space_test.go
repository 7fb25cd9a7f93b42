package lazy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fermata-cr/fermata/internal/pagestore"
	"github.com/fermata-cr/fermata/internal/sys"
)

const testPages = 256

// served is a handler of one area of this very process, whose pages come when
// they are touched and not before.
type served struct {
	h       *handler
	content []byte
	area    []byte
	stop    chan struct{}
	done    sync.WaitGroup
}

func serveOwn(t *testing.T) *served {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	v := &served{content: make([]byte, testPages*pageSize), stop: make(chan struct{})}
	rand.NewChaCha8([32]byte{7}).Read(v.content)
	dir := t.TempDir()
	w, err := pagestore.WriteMemory(dir, v.content, pagestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store, err := pagestore.Open(dir, w.Files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	v.h = &handler{store: store, watcher: -1}
	if v.h.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if v.area, err = unix.Mmap(-1, 0, testPages*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		t.Fatal(err)
	}
	fd, err := sys.Userfaultfd(unix.O_CLOEXEC | unix.O_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	if err := sys.UffdEnable(fd, Features); err != nil {
		t.Fatal(err)
	}
	if err := sys.UffdRegister(fd, v.at(0), testPages*pageSize, sys.UffdMissing); err != nil {
		t.Fatal(err)
	}
	// Two runs, the second half of the store first.
	half := uint64(testPages / 2 * pageSize)
	if err := v.h.add(newSpace(&Space{Uffd: fd, Runs: []Run{{v.at(0), half, half}, {v.at(0) + half, half, 0}}})); err != nil {
		t.Fatal(err)
	}
	v.content = append(v.content[half:len(v.content):len(v.content)], v.content[:half]...)
	v.done.Go(func() { v.loop(t) })
	t.Cleanup(func() {
		close(v.stop)
		v.done.Wait()
		for _, fd := range v.h.uffds() {
			unix.Close(fd)
		}
		unix.Close(v.h.epoll)
	})
	return v
}

func (v *served) at(page int) uint64 {
	return uint64(uintptr(unsafe.Pointer(&v.area[0]))) + uint64(page)*pageSize
}

// loop answers faults and events, and fills nothing by itself.
func (v *served) loop(t *testing.T) {
	rd := v.h.store.NewReader()
	defer rd.Close()
	var waiting []fault
	events := make([]unix.EpollEvent, 8)
	for {
		select {
		case <-v.stop:
			return
		default:
		}
		n, err := unix.EpollWait(v.h.epoll, events, 5)
		if err != nil && err != unix.EINTR {
			t.Error(err)
			return
		}
		faults := waiting
		waiting = nil
		for _, e := range events[:max(n, 0)] {
			f, err := v.h.read(int(e.Fd))
			if err != nil {
				t.Error(err)
				return
			}
			faults = append(faults, f...)
		}
		for _, f := range faults {
			again, err := f.serve(rd)
			if err != nil {
				t.Error(err)
				return
			}
			if again {
				waiting = append(waiting, f)
			}
		}
	}
}

// read reads a page of this process by way of the kernel, so that the runtime
// keeps its other goroutines going.
func (v *served) read(t *testing.T, at uint64) []byte {
	t.Helper()
	b := make([]byte, pageSize)
	if err := sys.ReadMem(os.Getpid(), at, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func (v *served) want(t *testing.T, at uint64, page int) {
	t.Helper()
	if got := v.read(t, at); !bytes.Equal(got, v.content[page*pageSize:(page+1)*pageSize]) {
		t.Errorf("page %d: not what was saved: %x…", page, got[:8])
	}
}

func (v *served) wantZero(t *testing.T, at uint64) {
	t.Helper()
	if got := v.read(t, at); !bytes.Equal(got, make([]byte, pageSize)) {
		t.Errorf("address %#x: %x…, not zero", at, got[:8])
	}
}

func (v *served) left() int {
	s := v.h.list()[0]
	s.bits.Lock()
	defer s.bits.Unlock()
	return s.left
}

func TestTouch(t *testing.T) {
	v := serveOwn(t)
	for _, p := range []int{0, 1, 77, testPages/2 - 1, testPages / 2, testPages - 1, 77} {
		v.want(t, v.at(p), p)
	}
	if n := v.left(); n == 0 || n > testPages-5 {
		t.Errorf("%d pages left of %d", n, testPages)
	}
	for p := range testPages {
		v.want(t, v.at(p), p)
	}
	// A page is counted a moment after who waited for it goes on.
	for end := time.Now().Add(5 * time.Second); v.left() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d pages left", v.left())
		}
	}
}

func TestThrownAway(t *testing.T) {
	v := serveOwn(t)
	v.want(t, v.at(12), 12)
	if err := unix.Madvise(v.area[10*pageSize:20*pageSize], unix.MADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	for p := 10; p < 20; p++ {
		v.wantZero(t, v.at(p))
	}
	v.want(t, v.at(9), 9)
	v.want(t, v.at(20), 20)
}

func TestUnmapped(t *testing.T) {
	v := serveOwn(t)
	at := v.at(40)
	if _, _, e := unix.Syscall(unix.SYS_MUNMAP, uintptr(at), 8*pageSize, 0); e != 0 {
		t.Fatal(e)
	}
	r, _, e := unix.Syscall6(unix.SYS_MMAP, uintptr(at), 8*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED_NOREPLACE, ^uintptr(0), 0)
	if e != 0 || r != uintptr(at) {
		t.Fatal(e)
	}
	for p := range 8 {
		v.wantZero(t, at+uint64(p)*pageSize)
	}
	v.want(t, v.at(39), 39)
	v.want(t, v.at(48), 48)
}

func TestMoved(t *testing.T) {
	v := serveOwn(t)
	to, err := unix.Mmap(-1, 0, 64*pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	dst := uint64(uintptr(unsafe.Pointer(&to[0])))
	const from, n = testPages/2 - 16, 32 // across the two runs
	v.want(t, v.at(from+3), from+3)
	move := func(from, to uint64) {
		t.Helper()
		if r, _, e := unix.Syscall6(unix.SYS_MREMAP, uintptr(from), n*pageSize, n*pageSize, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, uintptr(to), 0); e != 0 || uint64(r) != to {
			t.Fatal(e)
		}
	}
	move(v.at(from), dst)
	for _, p := range []int{0, 3, 15, 16, 31} {
		v.want(t, dst+uint64(p)*pageSize, from+p)
	}
	v.want(t, v.at(from-1), from-1)
	v.want(t, v.at(from+n), from+n)
	// Onto pages that have not come: they are gone.
	move(dst, v.at(200))
	for p := range n {
		v.want(t, v.at(200+p), from+p)
	}
	v.want(t, v.at(199), 199)
	v.want(t, v.at(200+n), 200+n)
}

func TestForked(t *testing.T) {
	// The fork is a raw call, which waits for a goroutine: nothing may wait for it.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	v := serveOwn(t)
	v.want(t, v.at(5), 5)
	err := sys.Ended(0, func(pid int) error {
		// The parent goes on, with its own memory.
		if err := unix.Madvise(v.area[64*pageSize:], unix.MADV_DONTNEED); err != nil {
			return err
		}
		for p := range testPages {
			b := make([]byte, pageSize)
			if err := sys.ReadMem(pid, v.at(p), b); err != nil {
				return err
			}
			if !bytes.Equal(b, v.content[p*pageSize:(p+1)*pageSize]) {
				return fmt.Errorf("page %d of the child: %x…", p, b[:8])
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	v.want(t, v.at(63), 63)
	v.wantZero(t, v.at(64))
	// The child's address space is gone, which is found when a page is to go there.
	if n := len(v.h.list()); n != 2 {
		t.Errorf("%d address spaces", n)
	}
}

// TestAllAtOnce has the background fill while the pages are touched, moved and
// thrown away.
func TestAllAtOnce(t *testing.T) {
	v := serveOwn(t)
	v.done.Go(func() {
		rd := v.h.store.NewReader()
		defer rd.Close()
		for !v.h.complete() {
			if err := v.h.round(rd); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for p := 0; p < testPages; p += 4 {
		if err := unix.Madvise(v.area[p*pageSize:(p+1)*pageSize], unix.MADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		v.wantZero(t, v.at(p))
		v.want(t, v.at(p+1), p+1)
	}
	for p := range testPages {
		if p%4 == 0 {
			v.wantZero(t, v.at(p))
		} else {
			v.want(t, v.at(p), p)
		}
	}
}

func TestPlanCutOff(t *testing.T) {
	p := Plan{PIDs: []int{4, 5}, Spaces: []Space{{Runs: []Run{{4096, 8192, 0}}}}}
	fd, err := p.encode()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	n, err := unix.Pread(fd, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decode(b[:n])
	if err != nil || len(got.PIDs) != 2 || got.PIDs[1] != 5 || len(got.Spaces) != 1 || got.Spaces[0].Runs[0] != p.Spaces[0].Runs[0] {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range n {
		if _, err := decode(b[:i]); err == nil {
			t.Errorf("%d of %d bytes were taken for a plan", i, n)
		}
	}
}
